"A drawn world whose truth is known: what is held out, what captions say, and what pictures show."

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from files import python
from pixnerd.scenes import (
    COLOURS, GROUNDS, PAIRS, PLACES, REACH, RELATIONS, SHAPES, SKILLS, VOCABULARY, Scenes, caption, distance,
    draw_scene, load_scenes, parse_caption, scene_from_caption)


SOME = {split: [load_scenes(split, 32).scene(i) for i in range(4000)] for split in ("train", "held-out")}


def test_held_out_compositions_are_never_trained_on():
    shown = {split: {(t.shape, t.colour) for s in some for t in s.objects} for split, some in SOME.items()}
    assert shown["train"] == set(PAIRS["train"]) and shown["held-out"] == set(PAIRS["held-out"])
    assert not shown["train"] & shown["held-out"]
    for said in (0, 1):                                     # every shape and every colour is in both
        assert {p[said] for p in PAIRS["train"]} == {p[said] for p in PAIRS["held-out"]} == set((SHAPES, COLOURS)[said])
    full = {split: {caption(s) for s in some if s.skill == "attribution"} for split, some in SOME.items()}
    assert not full["train"] & full["held-out"]


def test_every_word_skill_and_relation_is_taught():
    some = SOME["train"]
    assert {w for s in some for w in caption(s).split()} == set(VOCABULARY) and len(VOCABULARY) < 50
    assert {s.skill for s in some} == set(SKILLS) and {s.relation for s in some} == {*RELATIONS, *PLACES, ""}
    assert {s.ground for s in some} == set(range(len(GROUNDS)))
    assert {g.count for s in some for g in s.groups} == {1, 2, 3, 4}


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_scenes_are_true(split):
    "What a caption says is what its picture holds; nothing overlaps or leaves the picture."
    for scene in SOME[split]:
        assert parse_caption(caption(scene)) == (scene.groups, scene.relation)
        assert len(scene.objects) == sum(g.count for g in scene.groups)
        left = list(scene.objects)
        lots = [[left.pop(0) for _ in range(g.count)] for g in scene.groups]
        for group, lot in zip(scene.groups, lots):
            assert all(t.shape == group.shape and group.colour in ("", t.colour) and group.size in ("", t.size)
                       for t in lot)
        for t in scene.objects: assert REACH * t.radius <= min(t.x, t.y, 1 - t.x, 1 - t.y)
        for a, b in itertools.combinations(scene.objects, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) > REACH * (a.radius + b.radius)
        if len(lots) > 1:
            a, b = lots
            gap = {"left of": min(t.x for t in b) - max(t.x for t in a),
                   "right of": min(t.x for t in a) - max(t.x for t in b),
                   "above": min(t.y for t in b) - max(t.y for t in a),
                   "below": min(t.y for t in a) - max(t.y for t in b)}
            assert gap.get(scene.relation, 1) > .1 and a[0].shape != b[0].shape and a[0].colour != b[0].colour
        elif scene.relation:
            t, = scene.objects
            assert {"on the left": t.x < .4, "on the right": t.x > .6, "at the top": t.y < .4,
                    "at the bottom": t.y > .6, "in the centre": max(abs(t.x - .5), abs(t.y - .5)) < .2}[scene.relation]


@pytest.mark.parametrize("small", [16, 32, 48])
def test_every_resolution_shows_the_same(small):
    for scene in SOME["train"][:60]:
        far = (F.avg_pool2d(draw_scene(scene, 2 * small), 2) - draw_scene(scene, small)).abs() / 2
        assert far.mean() < .006 and far.max() < .08, caption(scene)
    assert draw_scene(scene, 37).shape == (3, 37, 37) and draw_scene(scene, 1).shape == (3, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_agree_with_areas_and_slopes(shape):
    "The inside has the area of the polygon, and distance grows by one a radius."
    line = (np.arange(800, dtype=np.float32) + .5) / 250 - 1.6
    d = distance(shape, line[None], line[:, None])
    points = SHAPES[shape]
    area = np.pi
    if points is not None:
        x, y = points.T
        area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert (d < 0).mean() * 3.2 ** 2 == pytest.approx(area, rel=.01)
    slope = np.hypot(*np.gradient(d, 1 / 250))
    assert np.median(slope) == pytest.approx(1, abs=1e-3) and (np.abs(slope - 1) < .05).mean() > .97


def test_scenes_are_the_same_in_every_process():
    code = """
import hashlib
from pixnerd.scenes import load_scenes
data = load_scenes("train", 24)
found = b"".join(data[i].image.numpy().tobytes() + data[i].label.encode() for i in range(40))
print(hashlib.sha256(found).hexdigest())
"""
    assert len({python(code, PYTHONHASHSEED=str(k)) for k in (1, 2)}) == 1
    one, other = load_scenes("train", 24), Scenes("train", 24, seed=1)
    assert [one[i].label for i in range(6)] != [other[i].label for i in range(6)]


def test_a_picture_is_its_truth():
    "Each object's own colour is at its centre, and the ground is at the corners."
    def rgb(code): return torch.tensor([int(code[i:i + 2], 16) / 127.5 - 1 for i in (1, 3, 5)])
    for i, scene in enumerate(SOME["train"][:200]):
        drawn = draw_scene(scene, 96)
        for t in scene.objects:
            middle = drawn[:, int(t.y * 96), int(t.x * 96)]
            nearest = min(COLOURS, key=lambda c: (rgb(COLOURS[c]) - middle).abs().sum())
            assert nearest == t.colour
        example = load_scenes("train", 96)[i]
        assert example.label == caption(scene) and (example.image / 127.5 - 1 - drawn).abs().max() <= 1 / 255 + 1e-6


def test_colours_can_be_told_apart_by_the_colour_blind():
    "CIELAB distances of colours and grounds, seen without one kind of cone (Machado, Oliveira and Fernandes, 2009)."
    seen = {"all cones": np.eye(3),
            "no red": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
            "no green": [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.01182, .04294, .968881]],
            "no blue": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .3039]]}
    def lab(code, cones):
        c = np.array([int(code[i:i + 2], 16) / 255 for i in (1, 3, 5)])
        c = np.clip(cones @ np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4), 0, 1)
        x = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]]) @ c / [.9505, 1, 1.089]
        f = np.where(x > .008856, np.cbrt(x), 7.787 * x + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    for name, cones in seen.items():
        colours = {k: lab(c, np.array(cones)) for k, c in COLOURS.items()}
        for a, b in itertools.combinations(colours, 2):
            assert np.linalg.norm(colours[a] - colours[b]) > 12, (name, a, b)
        for a, ground in itertools.product(colours, itertools.chain(*GROUNDS)):
            assert np.linalg.norm(colours[a] - lab(ground, np.array(cones))) > 12, (name, a, ground)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3999), st.sampled_from(list(PAIRS)), st.integers(0, 99))
def test_a_caption_is_drawn_as_it_says(i, split, seed):
    "Any caption of the world, anew: the same words, as many objects, none over another, none outside."
    text = caption(SOME[split][i])
    scene = scene_from_caption(text, seed)
    assert caption(scene) == text and scene == scene_from_caption(text, seed)
    assert len(scene.objects) == sum(g.count for g in scene.groups)
    for t in scene.objects: assert REACH * t.radius <= min(t.x, t.y, 1 - t.x, 1 - t.y)
    for a, b in itertools.combinations(scene.objects, 2):
        assert np.hypot(a.x - b.x, a.y - b.y) > REACH * (a.radius + b.radius)


def test_captions_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="caption must follow the grammar"): scene_from_caption("a purple circle")
    with pytest.raises(ValueError, match="there is no room for 4 objects"):
        scene_from_caption("four large circles left of a star")


def test_a_small_world_is_the_beginning_of_a_large_one():
    few, many = Scenes("train", 16, count=7), Scenes("train", 16)
    assert len(few) == 7 and len(many) == 50_000 and len(Scenes("held-out")) == 5_000
    assert torch.equal(few[6].image, many[6].image) and few[6].label == many[6].label
    with pytest.raises(IndexError, match="index must be from 0 to 6, got 7"): few[7]
    with pytest.raises(ValueError, match="count must be at least 1, got 0"): Scenes(count=0)

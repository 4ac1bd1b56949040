"Verdicts, prompts, intervals and scores are what they say."

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from pixnerd.scene_eval import (
    REASONS, _derange, _mean_rate, draw_suite, judge_scene, scene_prompts, score_scenes, show_scores, wilson)
from pixnerd.scene_reading import show_readings
from pixnerd.scenes import (
    COLOURS, PAIRS, PLACES, RELATIONS, SHAPES, SIZES, SKILLS, Scene, SceneObject, caption, draw_scene, make_scene,
    parse_caption)


def put(shape, colour="red", size="small", x=.5, y=.5) -> SceneObject:
    return SceneObject(shape, colour, size, x, y, sum(SIZES[size]) / 2, 0.)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from(list(PAIRS)))
def test_the_truth_is_right(i, split):
    scene = make_scene(i, split, 5)
    assert judge_scene(caption(scene), scene.objects) == (True, "")
    assert judge_scene(caption(scene), scene.objects[::-1]).right


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from(list(PAIRS)), st.data())
def test_one_fault_is_found_and_named(i, split, data):
    "Spoil one thing of a true scene, in a way that the caption speaks of: the verdict says in which."
    scene = make_scene(i, split, 6)
    k = data.draw(st.integers(0, len(scene.objects) - 1))
    group = next(g for g in scene.groups if g.shape == scene.objects[k].shape)
    said = [what for what in ("colour", "size") if getattr(group, what)]
    reason = data.draw(st.sampled_from(["missing", "shape", *said]))
    one, others = scene.objects[k], [t for j, t in enumerate(scene.objects) if j != k]
    if reason == "colour":
        others.append(one._replace(colour=next(c for c in COLOURS if c not in {t.colour for t in scene.objects})))
    if reason == "size": others.append(one._replace(size="large" if one.size == "small" else "small"))
    if reason == "shape":
        others.append(one._replace(shape=next(s for s in SHAPES if s not in {t.shape for t in scene.objects})))
    if reason == "missing" and group.count > 1: reason = "count"
    assert judge_scene(caption(scene), others) == (False, reason)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 5))
def test_turned_around_it_is_in_the_wrong_place(i):
    scene = make_scene(6 * i + SKILLS.index("position"), "train", 7)
    assume(scene.relation != "in the centre")
    assert judge_scene(caption(scene), [t._replace(x=1 - t.x, y=1 - t.y) for t in scene.objects]) == (False, "position")


@pytest.mark.parametrize("text, seen, reason", [
    ("a circle", [put("circle"), put("star"), put("circle", "blue")], ""),  # more than was asked for is no fault ...
    ("two circles", [put("circle"), put("circle"), put("star")], ""),
    ("two circles", 3 * [put("circle")], "count"), ("two circles", [put("circle")], "count"),
    ("three blue crosses", 3 * [put("cross")], "colour"),   # ... but where things are counted
    ("two red circles", [put("circle"), put("circle", "blue")], "colour"), ("two circles", 2 * [put("star")], "shape"),
    ("two circles", [], "missing"),
    ("a small red circle", [put("circle", "red", "large")], "size"), ("a small red circle", [put("star")], "shape"),
    ("a small red circle", [put("circle", "blue", "large")], "colour"),
    ("a red circle", [put("star", "blue")], "missing"),
    ("a circle and a star", [put("circle")], "missing"),
    ("a circle and a star", [put("circle"), put("cross")], "shape"),
    ("a red circle and a blue star", [put("circle", "blue"), put("star")], "colour"),
    ("a red circle and a blue circle", [put("circle"), put("circle", "blue")], ""),
    ("a red circle and a blue circle", [put("circle"), put("circle")], "colour"),
    ("a circle left of a star", [put("circle", x=.3), put("star", x=.7)], ""),
    ("a circle left of a star", [put("circle", x=.5), put("star", x=.52)], "position"),
    ("a circle above a star", [put("circle", y=.7), put("star", y=.3)], "position"),
    ("a circle below a star", [put("circle", y=.7), put("star", y=.3)], ""),
    ("a circle right of a star", [put("circle", x=.1), put("circle", x=.9), put("star")], ""),
    ("two circles left of a star", [put("circle", x=.2, y=.2), put("circle", x=.45, y=.8), put("star", x=.7)], ""),
    ("a circle on the left", [put("circle", x=.25)], ""), ("a circle on the left", [put("circle", x=.45)], "position"),
    ("a circle at the top", [put("circle", y=.8)], "position"),
    ("a circle in the centre", [put("circle")], ""), ("a circle in the centre", [put("circle", x=.3)], "position"),
    ("two circles at the top", [put("circle", y=.25, x=.4), put("circle", y=.7)], "position")])
def test_verdicts(text, seen, reason):
    assert judge_scene(text, seen) == (not reason, reason) and (not reason or reason in REASONS)


def test_places_do_not_share_a_point():
    for x, y in itertools.product(np.linspace(0, 1, 41), repeat=2):
        assert sum(judge_scene(f"a circle {place}", [put("circle", x=x, y=y)]).right
                   for place in PLACES) <= 1 + (abs(x - .5) > .13 and abs(y - .5) > .13)


@pytest.mark.parametrize("text", [
    "", "a purple circle", "circle", "one circle", "a circle near a star", "zwei Kreise", 7, None])
def test_captions_outside_the_grammar(text):
    with pytest.raises(ValueError, match="caption must"): judge_scene(text, [])


def test_captions_of_the_same_things_twice():
    for text in ("a circle and a circle", "a red circle left of a circle", "a small circle and a red circle",
                 "two red circles above a large circle"):
        with pytest.raises(ValueError, match="two different kinds"): judge_scene(text, [])


@pytest.mark.parametrize("split", list(PAIRS))
def test_prompts(split):
    suite = scene_prompts(60, split)
    assert tuple(suite) == SKILLS and suite == scene_prompts(60, split) and suite != scene_prompts(60, split, seed=1)
    shorter = {skill: texts[:20] for skill, texts in suite.items()}
    assert shorter == scene_prompts(20, split)              # a longer suite begins with the shorter one
    other = set(PAIRS["train" if split == "held-out" else "held-out"])
    for skill, texts in suite.items():
        assert len(texts) == 60 and max(texts.count(t) for t in texts) <= -(-60 // len(set(texts)))
        for groups, relation in map(parse_caption, texts):
            assert not {(g.shape, g.colour) for g in groups} & other
            if split == "held-out": assert all((g.shape, g.colour) in PAIRS["held-out"] for g in groups)
            if skill in ("single object", "colours"): assert len(groups) == 1 and not relation and groups[0].count == 1
            if skill == "counting": assert groups[0].count > 1
            if skill in ("two objects", "attribution"): assert relation == "and"
            if skill == "position": assert relation in (*RELATIONS[1:], *PLACES)


@pytest.mark.parametrize("arguments, says", [
    ((1,), "count must be"), ((2.5,), "count must be"), ((True,), "count must be"),
    ((5, "test"), "split must be one of train, held-out")])
def test_prompts_refuse(arguments, says):
    with pytest.raises(ValueError, match=says): scene_prompts(*arguments)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n, data):
    k = data.draw(st.integers(0, n))
    known = stats.binomtest(k, n).proportion_ci(.95, method="wilson")
    assert wilson(k / n, n) == pytest.approx((known.low, known.high), abs=1e-6)


def test_wilson_of_the_textbook():
    "Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."
    for k, n, low, high in ((81, 263, .2553, .3662), (15, 148, .0624, .1605), (0, 20, 0, .1611), (1, 29, .0061, .1718)):
        assert wilson(k / n, n) == pytest.approx((low, high), abs=6e-5)
    for bad in ((.5, 0), (1.2, 5), (-.1, 5)):
        with pytest.raises(ValueError, match="rate must be"): wilson(*bad)


def test_the_mean_of_six_covers():
    "The mean's interval holds the truth about as often as it says: 95 of 100, measured over 2,000 tries."
    rng, truth, n = np.random.default_rng(0), np.array([.95, .6, .3, .8, .1, .5]), 50
    held = 0
    for _ in range(2000):
        rates = rng.binomial(n, truth) / n
        m = _mean_rate([dict(zip(("rate", "low", "high"), (r, *wilson(r, n)))) for r in rates])
        held += m["low"] <= truth.mean() <= m["high"]
    assert .94 < held / 2000 < .975
    one = {"rate": .4, "low": .2, "high": .7}
    assert _mean_rate([one]) == pytest.approx(one)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=30), st.integers(0, 9))
def test_no_prompt_keeps_its_words(words, seed):
    if 2 * max(words.count(w) for w in words) > len(words):
        with pytest.raises(ValueError, match="at least 2 prompts"): _derange(words, seed)
        return
    other = _derange(words, seed)
    assert sorted(other) == list(range(len(words))) and all(words[i] != words[o] for i, o in enumerate(other))
    assert other == _derange(words, seed)


def test_fewer_than_two_prompts():
    for few in ([], ["a circle"], ["a circle", "a circle"]):
        with pytest.raises(ValueError, match="at least 2 prompts"): _derange(few)


def draw_prompt(text: str, size: int = 32) -> torch.Tensor:
    "A picture of what a caption says, in the plainest way."
    groups, relation = parse_caption(text)
    middles = {"left of": [(.25, .5), (.75, .5)], "right of": [(.75, .5), (.25, .5)], "above": [(.5, .25), (.5, .75)],
               "below": [(.5, .75), (.5, .25)], "and": [(.25, .5), (.75, .5)],
               "on the left": [(.25, .5)], "on the right": [(.75, .5)], "at the top": [(.5, .25)],
               "at the bottom": [(.5, .75)]}.get(relation, [(.5, .5)])
    objects = []
    for g, (x, y) in zip(groups, middles):
        radius = sum(SIZES[g.size or "small"]) / 2
        spots = [(-1, -1), (1, 1), (-1, 1), (1, -1)][:g.count] if g.count > 1 else [(0, 0)]
        step = min(.2, 1.25 * radius)
        objects += [SceneObject(g.shape, g.colour or "red", g.size or "small", x + step * a, y + step * b, radius, 0.)
                    for a, b in spots]
    return draw_scene(Scene(tuple(objects), groups, relation, "", 0), size)


def test_scores():
    "A model that draws what is asked for, one that never does, and two pictures of which one is right."
    prompts = {k: v for k, v in scene_prompts(12, "held-out").items()
               if k in ("single object", "counting", "attribution")}
    images = {k: torch.stack([draw_prompt(t) for t in texts]) for k, texts in prompts.items()}
    good = score_scenes(prompts, images)
    assert good["overall"]["rate"] == 1 and good["overall"]["low"] > .8 and good["control"]["high"] < .35
    assert good["pictures"] == 36
    assert json.loads(json.dumps(good)) == good and list(good["skills"]) == list(prompts)
    blank = {k: draw_scene(Scene((), (), "", "", 0), 32).expand(12, 3, 32, 32) for k in prompts}
    none = score_scenes(prompts, blank)
    assert none["overall"]["rate"] == 0 and all(s["faults"] == {"missing": 12} for s in none["skills"].values())
    half = score_scenes(prompts, {k: torch.stack([images[k], blank[k]], 1) for k in prompts})
    for s in half["skills"].values():
        assert s["rate"] == .5 and s["prompts"] == 12 and (s["low"], s["high"]) == wilson(.5, 12)
        assert s["faults"] == {"missing": 12}
    assert half["overall"]["rate"] == .5 and half["control"]["rate"] == good["control"]["rate"] / 2
    assert len(show_scores({"good": good, "none": none}).png()) > 3000


def test_scores_refuse():
    prompts, images = {"colours": ("a red circle", "a blue star")}, torch.zeros(2, 3, 32, 32)
    for bad, says in [(({}, {}), "same skills"), ((prompts, {"counting": images}), "same skills"),
                      ((prompts, {"colours": images[:1]}), "must have shape"),
                      ((prompts, {"colours": "none"}), "must have shape"),
                      ((prompts, {"colours": torch.zeros(2, 1, 32, 32)}), "must have shape"),
                      (({"colours": ("a red circle",)}, {"colours": images[:1]}), "at least 2 prompts"),
                      (({"colours": ("a red circle", "a dog")}, {"colours": images}),
                       "caption must follow the grammar")]:
        with pytest.raises(ValueError, match=says): score_scenes(*bad)
    for function in (show_scores, show_readings):
        with pytest.raises(ValueError, match="at least one"): function([] if function is show_readings else {})


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_a_suite_is_drawn_by_number_in_whatever_batches(batch):
    prompts, seen = {"counting": ("a", "b", "c"), "colours": ("d",) * 8}, []
    def draw(texts, numbers):
        assert len(texts) == len(numbers) <= batch
        return torch.tensor([[ord(text), number] for text, number in zip(texts, numbers)])
    drawn = draw_suite(draw, prompts, batch, seen.append)
    assert drawn["counting"].tolist() == [[97, 0], [98, 1], [99, 2]]
    assert drawn["colours"].tolist() == [[100, n] for n in range(3, 11)] and sum(seen) == 11

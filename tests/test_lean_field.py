"The field in tiles: the plain field's numbers and gradients, nothing kept but what went in, and no graph breaks."

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pixnerd.implementations import paint
from pixnerd.lean_field import LeanFieldFunction, _open_field, _tile_sizes, paint_in_tiles
from pixnerd.neural_field import make_field


def random_field(token_width=12, **changes):
    "A field whose every weight says something."
    torch.manual_seed(0)
    field = make_field(token_width, **dict(patch=4, width=8, depth=2) | changes)
    torch.nn.init.normal_(field.out.linear.weight)
    for p in field.parameters():
        if p.ndim == 1: torch.nn.init.normal_(p, 1, .3)
    return field


def both(field, run, patches, s):
    "Velocity and all gradients of a field by two implementations, in pairs."
    found = []
    for function in (field, run):
        x, tokens = patches.clone().requires_grad_(), s.clone().requires_grad_()
        v = function(x, tokens)
        weight = torch.randn(v.shape, generator=torch.Generator().manual_seed(3)).to(v)
        inputs = [x, tokens, *field.parameters()]
        grads = torch.autograd.grad((v * weight).sum(), inputs, materialize_grads=True, allow_unused=True)
        found.append([v.detach(), *grads])
    return zip(*found)


SHAPES = {                                      # images, patches of each, and what differs from `random_field`
    "one patch": (1, 1, {}),
    "a prime batch": (7, 1, {}),
    "three blocks, ratio 1, width 24": (2, 3, dict(depth=3, ratio=1, width=24)),
    "one block": (1, 5, dict(depth=1)),
    "no block": (1, 4, dict(depth=0)),
    "W1 alone, no output norm (text)": (2, 2, dict(normalise=("W1",), output_norm=False, encoding="separable-cosine")),
    "nothing normalised": (2, 2, dict(normalise=())),
    "no noisy pixels": (2, 2, dict(noisy_pixels=False)),
    "no encoding": (1, 3, dict(encoding="none")),
    "one channel, odd patch": (2, 3, dict(channels=1, patch=5, width=12)),
    "published width": (1, 2, dict(width=64, patch=8))}


def assert_same_as_plain(name, painter):
    "The velocity and all gradients of the field in `SHAPES`, to rounding."
    batch, count, changes = SHAPES[name]
    field = random_field(**changes)
    side, channels = changes.get("patch", 4), changes.get("channels", 3)
    patches, s = torch.randn(batch, count, channels, side, side), torch.randn(batch, count, 12)
    for plain, other in both(field, lambda x, t: paint_in_tiles(field, x, t, painter), patches, s):
        assert (plain - other).abs().max() <= 1e-5 * plain.abs().max().clamp_min(1), (plain - other).abs().max()


@pytest.mark.parametrize("name", SHAPES)
def test_same_numbers_and_gradients_as_plain(name): assert_same_as_plain(name, "lean")


@given(batch=st.integers(1, 3), count=st.integers(1, 5), rows=st.integers(1, 6), cols=st.integers(1, 6),
       width=st.sampled_from([1, 4, 24]), depth=st.integers(0, 3), ratio=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_lean_at_any_size(batch, count, rows, cols, width, depth, ratio):
    field = random_field(width=width, depth=depth, ratio=ratio).double()
    patches, s = torch.randn(batch, count, 3, rows, cols).double(), torch.randn(batch, count, 12).double()
    for plain, lean in both(field, lambda x, t: paint(field, x, t, "lean"), patches, s):
        assert_close(lean, plain, atol=1e-9, rtol=1e-7)


def test_tiles_do_not_show(monkeypatch):
    "Tiles of one patch, of three, and no tiles at all: the same sums."
    field, patches, s = random_field(), torch.randn(2, 7, 3, 4, 4), torch.randn(2, 7, 12)
    def run(x, t): return paint_in_tiles(field, x, t)
    whole = list(both(field, run, patches, s))
    for sizes in ((1, 1), (6, 3), (4, 2)):
        asked = []
        monkeypatch.setattr("pixnerd.lean_field._tile_sizes", lambda *_, sizes=sizes: asked.append(sizes) or sizes)
        for (_, a), (_, b) in zip(whole, both(field, run, patches, s)): assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert asked == [sizes, sizes]


@given(width=st.integers(1, 256), pixels=st.integers(1, 2 ** 16), ratio=st.integers(1, 8), depth=st.integers(0, 8),
       cuda=st.booleans())
@settings(max_examples=50, deadline=None)
def test_tile_sizes_are_whole_tiles(width, pixels, ratio, depth, cuda):
    tile, inner = _tile_sizes(width, depth, 2 * ratio * width ** 2, pixels, torch.float32, cuda)
    assert inner >= 1 and tile >= inner and tile % inner == 0


@pytest.mark.parametrize("changes", [{}, dict(normalise=("W1",), output_norm=False), dict(noisy_pixels=False),
                                     dict(normalise=())], ids=str)
def test_gradients_to_the_last_digit(changes):
    field = random_field(6, channels=2, patch=2, width=4, frequencies=2, **changes).double()
    normalise, weights = _open_field(field)
    table = field.embed.places((2, 2)).double()
    inputs = [torch.randn(3, 2, 4).double().requires_grad_(), torch.randn(3, 6).double().requires_grad_()]
    def run(x, s, *w): return LeanFieldFunction.apply(x, s, table, normalise, "lean", *w)
    assert torch.autograd.gradcheck(run, [*inputs, *weights])


def test_second_derivatives():
    field, patches = random_field().double(), torch.randn(1, 3, 3, 4, 4).double()
    found = []
    for name in ("plain", "lean"):
        s = torch.ones(1, 3, 12).double().requires_grad_()
        first, = torch.autograd.grad(paint(field, patches, s, name).square().sum(), s, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [s, *field.parameters()], allow_unused=True,
                                         materialize_grads=True))
    for plain, lean in zip(*found): assert_close(lean, plain)


def test_nothing_is_kept_but_tokens_and_pixels():
    field, kept = random_field(width=32), {}
    patches, s = torch.randn(1, 6, 3, 4, 4), torch.randn(1, 6, 12, requires_grad=True)
    weights = {p.untyped_storage().data_ptr() for p in field.parameters()}
    def note(x):
        place = x.untyped_storage().data_ptr()
        if place not in weights: kept[place] = x.numel()
        return x
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x): v = paint_in_tiles(field, patches, s)
    assert sum(kept.values()) == patches.numel() + s.numel() + 16 * 64    # and the encoding's table, shared by all


def test_compiles_without_graph_breaks_or_warnings():
    "In a process of its own: `aot_eager` traces forward and backward; the lean field at two sizes."
    code = """
import warnings; warnings.simplefilter('error', UserWarning)
import torch
from pixnerd import PixNerd
torch.manual_seed(0)
model = PixNerd.from_preset('digits', width=32, heads=2, depth=1, field_width=8, patch=4, image_size=16)
torch.nn.init.normal_(model.decoder.out.linear.weight)
compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
for model.field_impl, side in ('plain', 16), ('lean', 16), ('lean', 24):
    x, t, y = torch.randn(2, 1, side, side), torch.rand(2), torch.tensor([1, 2])
    for run in (model, compiled):
        v = run(x, t, y)
        g = torch.autograd.grad(v.square().sum(), model.parameters(), allow_unused=True, materialize_grads=True)
        if run is model: wanted = [v, *g]
    for a, b in zip(wanted, [v, *g]):                                     # rounding is of the largest
        torch.testing.assert_close(a, b, atol=1e-5 * max(1, a.abs().max().item()), rtol=1e-4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]

"Properties of patches, blocks, fields and the model."

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixnerd import PixNerd
from pixnerd.encodings import ENCODINGS, encoding_table
from pixnerd.neural_field import make_field
from pixnerd.patches import patch_grid, patchify, to_signed, to_uint8, unpatchify
from pixnerd.transformer import rotary_table, rotate

quick = settings(max_examples=25, deadline=None)
side = st.integers(1, 5)


def awake(**changes) -> PixNerd:
    "A small model whose last layer is not zero, so that its output says something."
    torch.manual_seed(0)
    small = dict(width=32, heads=2, depth=2, field_width=8, patch=4, image_size=16)
    model = PixNerd.from_preset("digits", **small | changes).eval().requires_grad_(False)
    last = model.decoder.linear if model.config.head == "linear" else model.decoder.out.linear
    torch.nn.init.normal_(last.weight)
    return model


@given(st.integers(1, 3), st.integers(1, 3), side, side, side, side)
@quick
def test_patches_come_back(batch, channels, rows, cols, ph, pw):
    x = torch.randn(batch, channels, rows * ph, cols * pw)
    patches = patchify(x, (ph, pw))
    assert patches.shape == (batch, rows * cols, channels, ph, pw)
    assert torch.equal(unpatchify(patches, patch_grid(rows * ph, cols * pw, (ph, pw))), x)


@given(st.floats(-3, 3, width=32))
@quick
def test_bytes_are_the_nearest(value):
    byte = to_uint8(torch.tensor(value))
    assert abs(to_signed(byte).item() - min(1, max(-1, value))) <= 1 / 255 + 1e-6


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1), st.integers(0, 1))
@quick
def test_rotary_scores_depend_on_the_difference_of_places(rows, cols, down, right):
    "With a table that follows the grid, a score between two tokens is that of any two equally far apart."
    g = torch.Generator().manual_seed(rows * 10 + cols)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=g)
    table = rotary_table((rows, cols), 16, extent=float(cols - 1) or 1.)
    n = rows * cols
    scores = (rotate(q.expand(1, 1, n, 16), table) @ rotate(k.expand(1, 1, n, 16), table).mT)[0, 0].view(rows, cols, rows, cols)
    assert torch.allclose(scores[0, 0, down, right], scores[rows - 1 - down, cols - 1 - right, rows - 1, cols - 1], atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"head": "linear"}, {"encoding": "sincos"}, {"noisy_pixels": False}, {"normalise": ()}, {"output_norm": False},
                                     {"rotary_extent": None}, {"field_depth": 3, "field_ratio": 1}], ids=str)
def test_images_of_a_batch_do_not_meet(changes):
    model, g = awake(**changes), torch.Generator().manual_seed(1)
    x, t, cond = torch.randn(3, 1, 16, 16, generator=g), torch.rand(3, generator=g), torch.tensor([0, 4, 10])
    together = model(x, t, cond)
    alone = torch.cat([model(x[i:i + 1], t[i:i + 1], cond[i:i + 1]) for i in range(3)])
    assert together.abs().max() > .01
    torch.testing.assert_close(together, alone, atol=1e-5 * together.abs().max().item(), rtol=1e-4)


@given(st.integers(0, 5), st.sampled_from(sorted(ENCODINGS)))
@quick
def test_a_token_moves_its_own_patch_only(which, encoding):
    torch.manual_seed(which)
    field = make_field(8, channels=2, patch=4, width=8, encoding=encoding)
    torch.nn.init.normal_(field.out.linear.weight)
    patches, tokens = torch.randn(1, 6, 2, 4, 4), torch.randn(1, 6, 8)
    before = field(patches, tokens)
    tokens[0, which] += 1
    moved = (field(patches, tokens) - before).abs().amax(dim=(0, 2, 3, 4)) > 0
    assert moved.nonzero().flatten().tolist() == [which]


def test_base_size_at_the_training_size_changes_nothing():
    model, x = awake(), torch.randn(2, 1, 16, 16)
    t, cond = torch.rand(2), torch.tensor([1, 2])
    assert torch.equal(model(x, t, cond, base_size=(16, 16)), model(x, t, cond))
    assert model(torch.randn(2, 1, 48, 32), t, cond, base_size=(16, 16)).shape == (2, 1, 48, 32)
    with pytest.raises(ValueError, match="base_size .12, 12. gives 3x3 patches of 4 pixels, which do not divide an image of 16x16"): model(x, t, cond, base_size=(12, 12))


@pytest.mark.parametrize("name", sorted(set(ENCODINGS) - {"none"}))
def test_encodings_agree_where_places_do(name):
    "The same place has the same channels at any resolution: corners, where ends are places; none of them, for a DCT of pixel centres."
    few, many = (encoding_table(name, (n, n)).view(n, n, -1) for n in (4, 16))
    same = torch.allclose(few[::3, ::3], many[::15, ::15], atol=1e-5)
    assert same == (name != "integer-dct")


@pytest.mark.parametrize("field, value, message", [
    ("patch", 5, "patch must divide image_size 16, got 5"), ("heads", 3, "heads must divide width 32"), ("channels", 0, "channels must be at least 1, got 0"),
    ("head", "conv", "head must be 'field' or 'linear', got 'conv'"), ("encoding", "fourier", "encoding must be one of dct"), ("normalise", ("W3",), "normalise may hold"),
    ("num_classes", 0, "either num_classes or text_width must be set"), ("depth", -1, "depth must not be negative"), ("colour", 1, "unknown configuration field 'colour'")])
def test_configurations_that_cannot_work(field, value, message):
    with pytest.raises(ValueError, match=message): awake(**{field: value})


def test_tables_made_while_sampling_serve_training():
    "Tables are kept between calls; made in inference mode, they could not be used with gradients afterwards."
    rotary_table.cache_clear(), encoding_table.cache_clear()
    model, x = awake(), torch.randn(1, 1, 16, 16)
    with torch.inference_mode(): model(x, torch.rand(1), torch.tensor([1]))
    model.requires_grad_(True)(x, torch.rand(1), torch.tensor([1])).sum().backward()
    assert model.patch_embedding.weight.grad.abs().max() > 0


def test_a_bfloat16_model_takes_float32_states():
    model, x = awake(), torch.randn(2, 1, 16, 16)
    t, cond = torch.rand(2), torch.tensor([1, 2])
    full, half = model(x, t, cond), model.to(torch.bfloat16)(x, t, cond)
    assert half.dtype == x.dtype and (half - full).abs().max() < .05 * full.abs().max()


@pytest.mark.parametrize("change, message", [
    (dict(x=torch.zeros(2, 3, 16, 16)), r"x must be float \(B, 1, H, W\)"), (dict(x=torch.zeros(2, 1, 16, 16).int()), "x must be float"), (dict(t=torch.zeros(1)), "t must be .2,., one time an image"),
    (dict(cond=torch.tensor([1])), "cond must be .2,. int64 class ids"), (dict(cond=torch.zeros(2)), "cond must be .2,. int64 class ids, got torch.float32"), (dict(base_size=16), "base_size must be a height and a width"),
    (dict(base_size=(0, 16)), "base_size must be a height and a width")])
def test_inputs_are_never_broadcast_or_misread(change, message):
    with pytest.raises(ValueError, match=message): awake()(**dict(x=torch.zeros(2, 1, 16, 16), t=torch.zeros(2), cond=torch.tensor([1, 2])) | change)

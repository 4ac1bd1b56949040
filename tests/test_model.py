"Properties of tables, patches, blocks, fields and the model."

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixnerd import PRESETS, PixNerd, PixNerdConfig
from pixnerd.encodings import ENCODINGS, Encoding, encoding_table
from pixnerd.heads import HEADS, Head
from pixnerd.model import Preset, count_parameters
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
    torch.nn.init.normal_(HEADS[model.config.head].last_layer(model.decoder).weight)
    return model


# --- patches, positions ---

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
    scores = rotate(q.expand(1, 1, n, 16), table) @ rotate(k.expand(1, 1, n, 16), table).mT
    scores = scores[0, 0].view(rows, cols, rows, cols)
    far = scores[rows - 1 - down, cols - 1 - right, rows - 1, cols - 1]
    assert torch.allclose(scores[0, 0, down, right], far, atol=1e-4)


# --- the model ---

@pytest.mark.parametrize("changes", [
    {}, {"head": "linear"}, {"encoding": "sincos"}, {"noisy_pixels": False}, {"normalise": ()}, {"output_norm": False},
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
    message = "base_size .12, 12. gives 3x3 patches of 4 pixels, which do not divide an image of 16x16"
    with pytest.raises(ValueError, match=message): model(x, t, cond, base_size=(12, 12))


@pytest.mark.parametrize("name", sorted(set(ENCODINGS) - {"none"}))
def test_encodings_agree_where_places_do(name):
    "The same place has the same channels at any resolution: the corners do, except for a DCT of pixel centres."
    few, many = (encoding_table(name, (n, n)).view(n, n, -1) for n in (4, 16))
    same = torch.allclose(few[::3, ::3], many[::15, ::15], atol=1e-5)
    assert same == (name != "integer-dct")


def test_tables_made_while_sampling_serve_training():
    "Tables are kept between calls; made in inference mode, they could not be used with gradients afterwards."
    rotary_table.cache_clear()
    encoding_table.cache_clear()
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
    (dict(x=torch.zeros(2, 3, 16, 16)), r"x must be float \(B, 1, H, W\)"),
    (dict(x=torch.zeros(2, 1, 16, 16).int()), "x must be float"),
    (dict(t=torch.zeros(1)), "t must be .2,., one time an image"),
    (dict(cond=torch.tensor([1])), "cond must be .2,. int64 class ids"),
    (dict(cond=torch.zeros(2)), "cond must be .2,. int64 class ids, got torch.float32"),
    (dict(base_size=16), "base_size must be a height and a width"),
    (dict(base_size=(0, 16)), "base_size must be a height and a width")])
def test_inputs_are_never_broadcast_or_misread(change, message):
    given = dict(x=torch.zeros(2, 1, 16, 16), t=torch.zeros(2), cond=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=message): awake()(**given | change)


def test_the_same_weights_under_another_configuration():
    model, x, t, cond = awake(), torch.randn(1, 1, 32, 32), torch.rand(1), torch.tensor([1])
    model.patch_embedding.weight.requires_grad_(True)
    other = model.with_config(off_grid="interpolate", rotary_extent=4.)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.data_ptr() == b.data_ptr() and a.requires_grad == b.requires_grad
    assert other.config == replace(model.config, off_grid="interpolate", rotary_extent=4.) and not other.training
    assert not torch.equal(other(x, t, cond, base_size=(16, 16)), model(x, t, cond, base_size=(16, 16)))
    with torch.no_grad(): other.condition.table.weight.zero_()
    assert not model.condition.table.weight.any()                          # one memory
    with pytest.raises(ValueError, match="weights do not fit depth=3"): model.with_config(depth=3)
    with pytest.raises(ValueError, match="unknown configuration field 'offgrid': did you mean 'off_grid'"):
        model.with_config(offgrid="interpolate")


# --- configurations ---

@pytest.mark.parametrize("changes, message", [
    (dict(patch=5), "patch must divide image_size 16, got 5"), (dict(heads=3), "heads must divide width 32"),
    (dict(channels=0), "channels must be at least 1, got 0"), (dict(depth=-1), "depth must be at least 0, got -1"),
    (dict(head="conv"), "head must be one of field, linear, got 'conv'"),
    (dict(encoding="fourier"), "encoding must be one of dct"), (dict(normalise=("W3",)), "normalise may hold"),
    (dict(num_classes=0), "either num_classes or text_width must be set"),
    (dict(colour=1), "unknown configuration field 'colour'"),
    (dict(noisy_pixels=False, encoding="none"), "noisy_pixels must be True for encoding 'none'"),
    (dict(encoding="sincos", frequencies=3), "frequencies must be even for encoding 'sincos', got 3"),
    (dict(class_names=["cat"]), "class_names must name each of 10 classes, or none, got 1"),
    (dict(class_names=[""] * 10), "class_names must not be empty"),
    (dict(class_names=["cat", "dog"] * 5), "class_names must differ, got 'cat' twice"),
    (dict(class_names=[1] * 10), "class_names must be a list of names"),
    (dict(normalise="W1"), "normalise must be a list of names, got 'W1'")])
def test_configurations_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message): awake(**changes)


WHOLE = [name for name, kind in PixNerdConfig.__annotations__.items() if kind in (int, int | None)]


@given(st.sampled_from(WHOLE), st.one_of(st.floats(), st.booleans(), st.text(), st.lists(st.integers()), st.binary()))
@quick
def test_a_size_is_a_whole_number(name, value):
    "Nothing else than an int is taken for one: no float, no bool, no text."
    with pytest.raises(ValueError, match=f"{name} must be a whole number, got "): PixNerdConfig(**{name: value})


@given(st.sampled_from(WHOLE), st.integers(2 ** 24, 10 ** 300))
@quick
def test_sizes_no_machine_has_are_refused_before_anything_is_built(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at most"): PixNerdConfig(**{name: value})


@pytest.mark.parametrize("changes, message", [
    (dict(width=65_536, heads=512, depth=1024), "weights is larger than this code can build"),
    (dict(field_width=4096, field_ratio=256, field_depth=64), "weights is larger than this code can build"),
    (dict(patch=4096, image_size=4096, frequencies=64), "an encoding of .* numbers is larger"),
    (dict(rotary_extent=float("inf")), "rotary_extent must be a number greater than 0, or None, got inf"),
    (dict(rotary_extent=float("nan")), "rotary_extent must be a number"),
    (dict(rotary_extent="16"), "rotary_extent must be a number"),
    (dict(output_norm="no"), "output_norm must be True or False, got 'no'"),
    (dict(output_norm=1), "output_norm must be True"),
    (dict(text_encoder=5), "text_encoder must be text, got 5"), (dict(encoding=["dct"]), "encoding must be text"),
    (dict(normalise=None), "normalise must be a list of names")])
def test_configurations_that_ask_for_nonsense(changes, message):
    with pytest.raises(ValueError, match=message): PixNerdConfig(**changes)


def test_a_configuration_from_json_has_tuples():
    config = PixNerdConfig(normalise=["W1"], num_classes=2, class_names=["cat", "dog"])
    assert config.normalise == ("W1",) and config.class_names == ("cat", "dog") and hash(config)


# --- tables of choices ---

def test_what_is_registered_is_known_everywhere(monkeypatch):
    def double(patch, count, device): return 2 * ENCODINGS["dct"].make(patch, count, device)
    monkeypatch.setitem(ENCODINGS, "double", Encoding(double))
    monkeypatch.setitem(HEADS, "again", HEADS["linear"])
    monkeypatch.setitem(PRESETS, "mine", Preset(PixNerdConfig(width=32, heads=2, depth=1), dict(steps=10)))
    assert torch.equal(encoding_table("double", (4, 4)), 2 * encoding_table("dct", (4, 4)))
    assert awake(encoding="double").config.encoding == "double" and awake(head="again").config.head == "again"
    assert PixNerd.from_preset("mine", image_size=32).config.depth == 1
    with pytest.raises(ValueError, match="preset must be one of .*, mine, got 'yours'"): PixNerd.from_preset("yours")


@pytest.mark.parametrize("table, entry, message", [
    (ENCODINGS, Encoding(), "encoding 'x' is incomplete: it lacks make"),
    (HEADS, Head(), "head 'x' is incomplete: it lacks make, last_layer"),
    (PRESETS, Preset(), "preset 'x' is incomplete: it lacks config"),
    (ENCODINGS, Head(abs, abs), "encoding 'x' must be Encoding.*, got Head"),
    (PRESETS, PixNerdConfig(), "preset 'x' must be Preset.*, got PixNerdConfig")])
def test_an_incomplete_entry_fails_where_it_is_registered_by_name(table, entry, message):
    before = dict(table)
    with pytest.raises(ValueError, match=message): table["x"] = entry
    assert dict(table) == before


def test_presets_are_what_was_published():
    counts = {name: sum(count_parameters(PRESETS[name].config).values()) for name in ("L/16", "XL/16", "XXL/16-text")}
    assert list(counts.values()) == [452_113_795, 700_589_219, 1_171_518_019]
    assert PRESETS["digits"].config == PixNerdConfig(width=128, heads=4, depth=4, field_depth=1, patch=8, image_size=32,
                                                     channels=1, num_classes=10, field_width=32)
    assert {"steps", "batch", "lr"} <= set.intersection(*(set(p.training) for p in PRESETS.values()))

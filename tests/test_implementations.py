"Which implementation of the field runs, and that a model does the same with each."

import logging
import warnings

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import test_published
from pixnerd import PixNerd, from_pretrained
from pixnerd.implementations import IMPLEMENTATIONS, _has_triton, _interprets, _warn_once, choose_implementation, paint
from pixnerd.run_folder import latest_checkpoint
from pixnerd.run_settings import TrainConfig
from pixnerd.training import train
from test_lean_field import random_field

needs_triton = pytest.mark.skipif(not _has_triton(), reason="Triton is not installed")
EVERY = ["plain", "lean", pytest.param("fused", marks=needs_triton)]


def random_model(**changes):
    "A small model whose every weight says something."
    torch.manual_seed(0)
    small = dict(width=32, heads=2, depth=2, field_width=8, patch=4, image_size=16)
    model = PixNerd.from_preset("digits", **small | changes)
    for p in model.parameters():
        if p.ndim == 1: torch.nn.init.normal_(p, p.mean().item(), .1)
    torch.nn.init.normal_(model.decoder.out.linear.weight)
    return model


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
def test_forward_derivatives_and_transforms_take_the_plain_way():
    model, x, t, cond = random_model(), torch.randn(1, 1, 16, 16), torch.rand(1), torch.tensor([1])
    def run(x, t):
        with sdpa_kernel(SDPBackend.MATH): return model(x, t, cond)   # PyTorch's other attention lacks such derivatives
    v, along = torch.func.jvp(run, (x, t), (torch.ones_like(x), torch.ones_like(t)))
    h = 1e-3
    assert_close(along, (run(x + h, t + h) - run(x - h, t - h)) / (2 * h), atol=2e-2, rtol=2e-2)
    wanted, = torch.autograd.grad(run(y := x.clone().requires_grad_(), t).sum(), y)
    assert_close(torch.func.grad(lambda x: run(x, t).sum())(x), wanted)
    model.field_impl = "lean"
    with pytest.raises(ValueError, match="field_impl='lean' cannot run: forward derivatives"):
        torch.func.jvp(run, (x, t), (x, t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "lean"])
def test_a_model_under_autocast(name, dtype):
    "In bfloat16 every implementation is as close to the exact numbers as rounding allows; no warnings about types."
    model, x, t, cond = random_model(), torch.randn(2, 1, 16, 16), torch.rand(2), torch.tensor([1, 10])
    def gradients(v):
        return torch.autograd.grad(v.square().sum(), model.parameters(), allow_unused=True, materialize_grads=True)
    model.field_impl = "plain"
    exact = model(x, t, cond)
    wanted = gradients(exact)
    model.field_impl, half = name, dtype is torch.bfloat16
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        warnings.simplefilter("error")
        v = model(x, t, cond)
    assert v.dtype == x.dtype
    assert (v - exact).norm() < (.03 if half else 1e-5) * exact.norm()
    for a, b in zip(gradients(v), wanted):
        assert a.dtype == b.dtype and (a - b).norm() <= (.1 if half else 1e-5) * b.norm() + 1e-6


@pytest.mark.parametrize("impl", EVERY)
@pytest.mark.parametrize("name", ["c2i_tiny", "c2i_gray_nonsquare", "t2i_tiny", "t2i_any_resolution"])
def test_reference_values_by_every_implementation(name, impl, monkeypatch):
    if impl == "fused" and not _interprets(): pytest.skip("Triton was imported without its interpreter")
    monkeypatch.setenv("PIXNERD_FIELD_IMPL", impl)
    test_published.test_output_equals_the_reference(name)


def test_training_by_every_implementation(tmp_path, monkeypatch):
    "The same losses and, up to rounding, the same weights."
    found = {}
    for impl in ("plain", "lean", *(["fused"] if _has_triton() and _interprets() else [])):
        monkeypatch.setenv("PIXNERD_FIELD_IMPL", impl)
        config = TrainConfig(out=str(tmp_path/impl), steps=3, batch=2, log_every=1, save_every=3, device="cpu", lr=1e-3)
        losses = [step.loss.mean().item() for step in train(config)]
        found[impl] = losses, list(from_pretrained(latest_checkpoint(tmp_path/impl)).state_dict().values())
    for losses, weights in found.values():
        assert losses == pytest.approx(found["plain"][0], rel=1e-4)
        for a, b in zip(weights, found["plain"][1], strict=True): assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_a_choice_that_cannot_run_says_why(monkeypatch):
    field, s = random_field(), torch.randn(1, 2, 12)
    monkeypatch.setattr("pixnerd.implementations._interprets", lambda: False)
    assert choose_implementation(field, s) == "lean" and choose_implementation(field, s, "plain") == "plain"
    missing = "field_impl='fused' cannot run: (tokens are on cpu: the kernel needs a GPU|Triton is not installed)"
    with pytest.raises(ValueError, match=missing): choose_implementation(field, s, "fused")
    with pytest.raises(ValueError, match="field_impl must be one of auto, plain, lean, fused, got 'fast'"):
        PixNerd(random_model().config, field_impl="fast")
    monkeypatch.setattr("pixnerd.implementations._interprets", lambda: True)
    if _has_triton():
        with pytest.raises(ValueError, match="up to 128 and hidden width up to 256 on the chip, got 160 and 320"):
            choose_implementation(random_field(width=160), s, "fused")
        with pytest.raises(ValueError, match="has no blocks"): choose_implementation(random_field(depth=0), s, "fused")
        with pytest.raises(ValueError, match="tokens are float64"): choose_implementation(field, s.double(), "fused")
    monkeypatch.setattr("pixnerd.implementations._has_triton", lambda: False)
    with pytest.raises(ValueError, match="Triton is not installed"): choose_implementation(field, s, "fused")


def test_hooks_hear_the_parts_of_a_fresh_models_field():
    "A researcher's hook on the decoder, or on a block of it, is called; and nothing else changes."
    model, heard = PixNerd.from_preset("digits").eval(), []
    torch.nn.init.normal_(model.decoder.out.linear.weight)
    given = torch.randn(2, 1, 32, 32), torch.rand(2), torch.tensor([1, 2])
    with torch.no_grad(): before = model(*given)
    hooks = [part.register_forward_hook(lambda m, *_: heard.append(type(m).__name__))
             for part in (model.decoder, model.decoder.blocks[0])]
    with torch.no_grad(): assert_close(model(*given), before, atol=1e-5, rtol=0)
    assert heard == ["FieldBlock", "NeuralField"]
    for hook in hooks: hook.remove()


def test_falling_back_is_said_once(caplog):
    _warn_once.cache_clear()
    field, x, s = random_field(), torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 12)
    with caplog.at_level(logging.WARNING, "pixnerd"):
        for _ in range(3): torch.func.jvp(lambda s: paint(field, x, s), (s,), (s,))
    assert [r.getMessage() for r in caplog.records] == [
        "field_impl 'auto' does without 'lean': "
        "forward derivatives and function transforms go through the plain field only"]


def test_the_environment_chooses_for_fresh_models(monkeypatch):
    for name in IMPLEMENTATIONS:
        monkeypatch.setenv("PIXNERD_FIELD_IMPL", name)
        assert random_model().field_impl == name
    monkeypatch.setenv("PIXNERD_FIELD_IMPL", "fast")
    with pytest.raises(ValueError, match="field_impl must be one of"): random_model()

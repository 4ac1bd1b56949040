"The field by every implementation: same numbers, same gradients, nothing kept; and the kernels, interpreted and compiled without a GPU."

import logging
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import test_published
from pixnerd import PixNerd, from_pretrained
from pixnerd.implementations import IMPLEMENTATIONS, choose_implementation, has_triton, interprets, paint, say_once
from pixnerd.lean_field import Painting, open_field, paint_lean, tile_sizes
from pixnerd.neural_field import make_field
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint
from pixnerd.training import train

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def awake_field(token_width=12, **settings):
    "A field whose every weight says something."
    torch.manual_seed(0)
    field = make_field(token_width, **dict(patch=4, width=8, depth=2) | settings)
    torch.nn.init.normal_(field.out.linear.weight)
    for p in field.parameters():
        if p.ndim == 1: torch.nn.init.normal_(p, 1, .3)
    return field


def both(field, run, patches, s):
    "Velocity and all gradients by two ways."
    found = []
    for way in (field, run):
        x, tokens = patches.clone().requires_grad_(), s.clone().requires_grad_()
        v = way(x, tokens)
        weight = torch.randn(v.shape, generator=torch.Generator().manual_seed(3)).to(v)
        grads = torch.autograd.grad((v * weight).sum(), [x, tokens, *field.parameters()], materialize_grads=True, allow_unused=True)
        found.append([v.detach(), *grads])
    return zip(*found)


SHAPES = {"one patch": (1, 1, {}), "a prime batch": (7, 1, {}), "three blocks, ratio 1, width 24": (2, 3, dict(depth=3, ratio=1, width=24)), "one block": (1, 5, dict(depth=1)),
          "no block": (1, 4, dict(depth=0)), "W1 alone, no output norm (text)": (2, 2, dict(normalise=("W1",), output_norm=False, encoding="separable-cosine")),
          "nothing normalised": (2, 2, dict(normalise=())), "no noisy pixels": (2, 2, dict(noisy_pixels=False)), "no encoding": (1, 3, dict(encoding="none")),
          "one channel, odd patch": (2, 3, dict(channels=1, patch=5, width=12)), "published width": (1, 2, dict(width=64, patch=8))}


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=needs_triton)], ids=["lean", "fused"])
@pytest.mark.parametrize("name", SHAPES)
def test_same_numbers_and_gradients_as_plain(name, fused):
    batch, count, changes = SHAPES[name]
    if fused and changes.get("depth") == 0: pytest.skip("the kernel is for fields with blocks: `auto` paints such a field leanly")
    if fused and not interprets(): pytest.skip("Triton was imported without its interpreter (there is a GPU: the kernel is tested on it, below)")
    field = awake_field(**changes)
    side, channels = changes.get("patch", 4), changes.get("channels", 3)
    patches, s = torch.randn(batch, count, channels, side, side), torch.randn(batch, count, 12)
    for plain, other in both(field, lambda x, t: paint_lean(field, x, t, fused=fused), patches, s):
        assert (plain - other).abs().max() <= 1e-5 * plain.abs().max().clamp_min(1), (plain - other).abs().max()


@given(batch=st.integers(1, 3), count=st.integers(1, 5), rows=st.integers(1, 6), cols=st.integers(1, 6), width=st.sampled_from([1, 4, 24]), depth=st.integers(0, 3), ratio=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_lean_at_any_size(batch, count, rows, cols, width, depth, ratio):
    field = awake_field(width=width, depth=depth, ratio=ratio).double()
    patches, s = torch.randn(batch, count, 3, rows, cols).double(), torch.randn(batch, count, 12).double()
    for plain, lean in both(field, lambda x, t: paint(field, x, t, "lean"), patches, s): assert_close(lean, plain, atol=1e-9, rtol=1e-7)


def test_tiles_do_not_show(monkeypatch):
    "Tiles of one patch, of three, and no tiles at all: the same sums."
    field, patches, s = awake_field(), torch.randn(2, 7, 3, 4, 4), torch.randn(2, 7, 12)
    whole = list(both(field, lambda x, t: paint_lean(field, x, t), patches, s))
    for sizes in ((1, 1), (6, 3), (4, 2)):
        monkeypatch.setattr("pixnerd.fused_field.tile_sizes", lambda *a, sizes=sizes: sizes)
        for (_, a), (_, b) in zip(whole, both(field, lambda x, t: paint_lean(field, x, t), patches, s)): assert_close(a, b, atol=1e-5, rtol=1e-5)


@given(width=st.integers(1, 256), pixels=st.integers(1, 2 ** 16), ratio=st.integers(1, 8), depth=st.integers(0, 8), cuda=st.booleans())
@settings(max_examples=50, deadline=None)
def test_tile_sizes_are_whole_tiles(width, pixels, ratio, depth, cuda):
    shape = open_field(make_field(4, width=1, depth=0))[0]
    tile, inner = tile_sizes(shape.__class__(width, depth, 3, (), True), 2 * ratio * width ** 2, pixels, torch.float32, cuda)
    assert inner >= 1 and tile >= inner and tile % inner == 0


@pytest.mark.parametrize("changes", [{}, dict(normalise=("W1",), output_norm=False), dict(noisy_pixels=False), dict(normalise=())], ids=str)
def test_gradients_to_the_last_digit(changes):
    field = awake_field(6, channels=2, patch=2, width=4, frequencies=2, **changes).double()
    shape, weights = open_field(field)
    inputs = [torch.randn(3, 2, 4).double().requires_grad_(), torch.randn(3, 6).double().requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, s, *w: Painting.apply(x, s, field.embed.places((2, 2)).double(), shape, False, *w), [*inputs, *weights])


def test_second_derivatives():
    field, patches = awake_field().double(), torch.randn(1, 3, 3, 4, 4).double()
    found = []
    for name in ("plain", "lean"):
        s = torch.ones(1, 3, 12).double().requires_grad_()
        first, = torch.autograd.grad(paint(field, patches, s, name).square().sum(), s, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [s, *field.parameters()], allow_unused=True, materialize_grads=True))
    for plain, lean in zip(*found): assert_close(lean, plain)


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
def test_forward_derivatives_and_transforms_take_the_plain_way():
    model, x, t, cond = awake_model(), torch.randn(1, 1, 16, 16), torch.rand(1), torch.tensor([1])
    def run(x, t):
        with sdpa_kernel(SDPBackend.MATH): return model(x, t, cond)        # PyTorch's other attention has no forward derivatives
    v, along = torch.func.jvp(run, (x, t), (torch.ones_like(x), torch.ones_like(t)))
    h = 1e-3
    assert_close(along, (run(x + h, t + h) - run(x - h, t - h)) / (2 * h), atol=2e-2, rtol=2e-2)
    assert_close(torch.func.grad(lambda x: run(x, t).sum())(x), torch.autograd.grad(run(y := x.clone().requires_grad_(), t).sum(), y)[0])
    model.field_impl = "lean"
    with pytest.raises(ValueError, match="field_impl='lean' cannot run: forward derivatives"): torch.func.jvp(run, (x, t), (x, t))


def awake_model(**changes):
    torch.manual_seed(0)
    model = PixNerd.from_preset("digits", **dict(width=32, heads=2, depth=2, field_width=8, patch=4, image_size=16) | changes)
    for p in model.parameters():
        if p.ndim == 1: torch.nn.init.normal_(p, p.mean().item(), .1)
    torch.nn.init.normal_(model.decoder.out.linear.weight)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "lean"])
def test_a_model_under_autocast(name, dtype):
    "In bfloat16 every way is as close to the exact numbers as rounding allows; no warnings about types."
    model, x, t, cond = awake_model(), torch.randn(2, 1, 16, 16), torch.rand(2), torch.tensor([1, 10])
    model.field_impl = "plain"
    exact = model(x, t, cond)
    grads = torch.autograd.grad(exact.square().sum(), model.parameters(), allow_unused=True, materialize_grads=True)
    model.field_impl = name
    import warnings
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        warnings.simplefilter("error")
        v = model(x, t, cond)
    assert v.dtype == x.dtype
    assert (v - exact).norm() < (.03 if dtype is torch.bfloat16 else 1e-5) * exact.norm()
    for a, b in zip(torch.autograd.grad(v.square().sum(), model.parameters(), allow_unused=True, materialize_grads=True), grads):
        assert a.dtype == b.dtype and (a - b).norm() <= (.1 if dtype is torch.bfloat16 else 1e-5) * b.norm() + 1e-6


EVERY = ["plain", "lean", pytest.param("fused", marks=needs_triton)]


@pytest.mark.parametrize("impl", EVERY)
@pytest.mark.parametrize("name", ["c2i_tiny", "c2i_gray_nonsquare", "t2i_tiny", "t2i_any_resolution"])
def test_reference_values_by_every_implementation(name, impl, monkeypatch):
    if impl == "fused" and not interprets(): pytest.skip("Triton was imported without its interpreter (there is a GPU: the kernel is tested on it, below)")
    monkeypatch.setenv("PIXNERD_FIELD_IMPL", impl)
    test_published.test_output_equals_the_reference(name)


def test_training_by_every_implementation(tmp_path, monkeypatch):
    "The same losses and, up to rounding, the same weights."
    found = {}
    for impl in ("plain", "lean", *(["fused"] if has_triton() and interprets() else [])):
        monkeypatch.setenv("PIXNERD_FIELD_IMPL", impl)
        config = TrainConfig(out=str(tmp_path/impl), steps=3, batch=2, log_every=1, save_every=3, device="cpu", lr=1e-3)
        losses = [step.loss.mean().item() for step in train(config)]
        found[impl] = losses, list(from_pretrained(latest_checkpoint(tmp_path/impl)).state_dict().values())
    for losses, weights in found.values():
        assert losses == pytest.approx(found["plain"][0], rel=1e-4)
        for a, b in zip(weights, found["plain"][1], strict=True): assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_nothing_is_kept_but_tokens_and_pixels():
    field, patches, s = awake_field(width=32), torch.randn(1, 6, 3, 4, 4), torch.randn(1, 6, 12, requires_grad=True)
    weights, kept = {p.untyped_storage().data_ptr() for p in field.parameters()}, {}
    def note(x):
        if x.untyped_storage().data_ptr() not in weights: kept[x.untyped_storage().data_ptr()] = x.numel()
        return x
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x): v = paint_lean(field, patches, s)
    assert sum(kept.values()) == patches.numel() + s.numel() + 16 * 64    # and the table of places, shared by all


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
    for a, b in zip(wanted, [v, *g]): torch.testing.assert_close(a, b, atol=1e-5 * max(1, a.abs().max().item()), rtol=1e-4)      # rounding is of the largest
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]


def test_a_choice_that_cannot_run_says_why(monkeypatch):
    field, s = awake_field(), torch.randn(1, 2, 12)
    monkeypatch.setattr("pixnerd.fused_field.interprets", lambda: False)
    assert choose_implementation(field, s) == "lean" and choose_implementation(field, s, "plain") == "plain"
    with pytest.raises(ValueError, match="field_impl='fused' cannot run: (tokens are on cpu: the kernel needs a GPU|Triton is not installed)"): choose_implementation(field, s, "fused")
    with pytest.raises(ValueError, match="field_impl must be one of auto, plain, lean, fused, got 'fast'"): PixNerd(awake_model().config, field_impl="fast")
    monkeypatch.setattr("pixnerd.fused_field.interprets", lambda: True)
    if has_triton():
        with pytest.raises(ValueError, match="up to 128 and hidden width up to 256 on the chip, got 160 and 320"): choose_implementation(awake_field(width=160), s, "fused")
        with pytest.raises(ValueError, match="has no blocks"): choose_implementation(awake_field(depth=0), s, "fused")
    monkeypatch.setattr("pixnerd.fused_field.has_triton", lambda: False)
    with pytest.raises(ValueError, match="Triton is not installed"): choose_implementation(field, s, "fused")


def test_hooks_hear_the_parts_of_a_fresh_models_field():
    "A researcher's hook on the decoder, or on a block of it, is called; and nothing else changes."
    model, heard = PixNerd.from_preset("digits").eval(), []
    torch.nn.init.normal_(model.decoder.out.linear.weight)
    given = torch.randn(2, 1, 32, 32), torch.rand(2), torch.tensor([1, 2])
    with torch.no_grad(): before = model(*given)
    hooks = [part.register_forward_hook(lambda m, *_: heard.append(type(m).__name__)) for part in (model.decoder, model.decoder.blocks[0])]
    with torch.no_grad(): assert_close(model(*given), before, atol=1e-5, rtol=0)
    assert heard == ["FieldBlock", "NeuralField"]
    for hook in hooks: hook.remove()



def test_falling_back_is_said_once(caplog):
    say_once.cache_clear()
    field, x, s = awake_field(), torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 12)
    with caplog.at_level(logging.WARNING, "pixnerd"):
        for _ in range(3): torch.func.jvp(lambda s: paint(field, x, s), (s,), (s,))
    assert [r.getMessage() for r in caplog.records] == ["field_impl 'auto' does without 'lean': forward derivatives and function transforms go through the plain field only"]


def test_the_environment_chooses_for_fresh_models(monkeypatch):
    for name in IMPLEMENTATIONS:
        monkeypatch.setenv("PIXNERD_FIELD_IMPL", name)
        assert awake_model().field_impl == name
    monkeypatch.setenv("PIXNERD_FIELD_IMPL", "fast")
    with pytest.raises(ValueError, match="field_impl must be one of"): awake_model()


def test_nothing_needs_triton():
    "Importing and running brings no Triton where none is asked for; where it is absent, all but the kernel works."
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'triton': raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import torch
from pixnerd import PixNerd, fused_field
model = PixNerd.from_preset('digits', width=32, heads=2, depth=1, field_width=8)
model(torch.randn(1, 1, 32, 32), torch.rand(1), torch.tensor([1])).sum().backward()
assert 'triton' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]


@needs_triton
@pytest.mark.parametrize("name, extra", [("forward_kernel", dict(COLOURS=3, CHANNELS=3, NORM=True, KEEP=False, QB=128, JB=64)), ("backward_kernel", dict(QB=32, JB=128))])
def test_kernels_compile_for_a_gpu_that_is_not_here(name, extra):
    "Down to machine code of an H100, for XL/16 in bfloat16: Triton brings its own assembler."
    code = f"""
import os; os.environ.pop('TRITON_INTERPRET', None)
import triton
from triton.compiler import ASTSource
from triton.backends.compiler import GPUTarget
from pixnerd import fused_field
fused_field.load_kernels()
kernel, constants = getattr(fused_field, {name!r}), dict(Q=256, H=64, RH=128, DEPTH=4, N1=True, N2=True, HB=64) | {extra!r}
names = kernel.arg_names
kinds = {{n: 'constexpr' if n in constants else '*fp32' if n == 'dgains' else '*bf16' for n in names}}
done = triton.compile(ASTSource(kernel, kinds, {{(names.index(n),): v for n, v in constants.items()}}, {{}}), target=GPUTarget('cuda', 90, 32), options=dict(num_warps=8))
assert len(done.asm['cubin']) > 1000 and done.metadata.shared <= 227 * 1024, done.metadata.shared
"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**env, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the kernels are interpreted, and compiled, but not run")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_on_a_gpu(dtype):
    if has_triton() and interprets(): pytest.skip("Triton was told to interpret")
    field = awake_field(96, width=64, patch=16, depth=4).cuda()
    patches, s = torch.randn(2, 33, 3, 16, 16, device="cuda"), torch.randn(2, 33, 96, device="cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        for plain, fused in both(field, lambda x, t: paint(field, x, t, "fused"), patches, s):
            assert (plain - fused).norm() <= (.05 if dtype is torch.bfloat16 else 2e-3) * plain.norm() + 1e-6

"The kernels: interpreted on the CPU, compiled for a GPU that is not here, and run where there is one."

import os
import subprocess
import sys

import pytest
import torch

from pixnerd.implementations import _has_triton, _interprets, paint
from test_lean_field import SHAPES, assert_same_as_plain, both, random_field

needs_triton = pytest.mark.skipif(not _has_triton(), reason="Triton is not installed")
WITH_BLOCKS = [name for name in SHAPES if name != "no block"]    # `auto` paints a field without blocks leanly


@needs_triton
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_same_numbers_and_gradients_as_plain(name):
    if not _interprets(): pytest.skip("Triton was imported without its interpreter: it is tested on the GPU, below")
    assert_same_as_plain(name, "fused")


def test_nothing_needs_triton():
    "Importing and running brings no Triton where none is asked for; where it is absent, all but the kernel works."
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'triton': raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import torch
from pixnerd import PixNerd, triton_field
model = PixNerd.from_preset('digits', width=32, heads=2, depth=1, field_width=8)
model(torch.randn(1, 1, 32, 32), torch.rand(1), torch.tensor([1])).sum().backward()
assert 'triton' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]


@needs_triton
@pytest.mark.parametrize("index, extra", [
    (0, dict(COLOURS=3, CHANNELS=3, NORM=True, KEEP=False, QB=128, JB=64)), (1, dict(QB=32, JB=128))],
    ids=["forward", "backward"])
def test_kernels_compile_for_a_gpu_that_is_not_here(index, extra):
    "Down to machine code of an H100, for XL/16 in bfloat16: Triton brings its own assembler."
    code = f"""
import triton
from triton.compiler import ASTSource
from triton.backends.compiler import GPUTarget
from pixnerd.triton_field import _load_kernels
kernel = _load_kernels()[{index}]
constants = dict(Q=256, H=64, RH=128, DEPTH=4, N1=True, N2=True, HB=64) | {extra!r}
names = kernel.arg_names
kinds = {{n: 'constexpr' if n in constants else '*fp32' if n == 'dgains' else '*bf16' for n in names}}
source = ASTSource(kernel, kinds, {{(names.index(n),): v for n, v in constants.items()}}, {{}})
done = triton.compile(source, target=GPUTarget('cuda', 90, 32), options=dict(num_warps=8))
assert len(done.asm['cubin']) > 1000 and done.metadata.shared <= 227 * 1024, done.metadata.shared
"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**env, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert not done.returncode, done.stderr[-1500:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: kernels are interpreted, and compiled, but not run")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_on_a_gpu(dtype):
    if _has_triton() and _interprets(): pytest.skip("Triton was told to interpret")
    field = random_field(96, width=64, patch=16, depth=4).cuda()
    patches, s = torch.randn(2, 33, 3, 16, 16, device="cuda"), torch.randn(2, 33, 96, device="cuda")
    half = dtype is torch.bfloat16
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        for plain, fused in both(field, lambda x, t: paint(field, x, t, "fused"), patches, s):
            assert (plain - fused).norm() <= (.05 if half else 2e-3) * plain.norm() + 1e-6

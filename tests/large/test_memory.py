"A full-size published file, made here: loading it stays within its memory bound. Run by `make test-large` (12 GB of disk, a minute or two)."

import subprocess
import sys

import pytest
import torch

from pixnerd import PRESETS, PixNerd, to_official
from pixnerd.model import count_parameters

MEASURE = """
import re, sys, torch, pixnerd
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])   # ru_maxrss would count the parent's
before = peak()
model = pixnerd.PixNerd.from_pretrained(sys.argv[1], dtype=None)
loaded = peak()
with torch.no_grad(): model(torch.randn(1, 3, 256, 256), torch.rand(1), torch.tensor([1]))
print(loaded - before, peak() - before)
"""


@pytest.mark.parametrize("preset", ["L/16", "XL/16"])
def test_loading_a_published_file_peaks_below_its_bound(preset, tmp_path):
    with torch.device("meta"): official = to_official(PixNerd(PRESETS[preset].config))
    weights = {prefix + name: torch.randn(w.shape) * .02 for prefix in ("denoiser.", "ema_denoiser.") for name, w in official.items()}
    torch.save({"state_dict": weights}, tmp_path/"model.ckpt")
    del weights
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path/"model.ckpt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, used = map(int, done.stdout.split())
    size = 4 * sum(count_parameters(PRESETS[preset].config).values())
    print(f"{preset}: {size / 1e9:.2f} GB of weights, peak {loaded / size:.2f} x while loading, {used / size:.2f} x after a forward pass")
    assert loaded <= 1.3 * size
    assert used > .9 * size                                 # the weights were really read: the measure measures

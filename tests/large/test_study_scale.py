"The studies at CIFAR-10's scale, rehearsed on a CPU with a folder of pictures and two steps: three minutes."

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from pixnerd.studies import Study

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--scale cifar10 --steps 2 --batch 4 --samples 0 --seeds 1 --device cpu".split()


@pytest.mark.timeout(900)
def test_a_study_at_the_larger_scale(tmp_path):
    g = torch.Generator().manual_seed(0)
    for k in range(3):
        folder = tmp_path/"pictures"/f"c{k}"
        folder.mkdir(parents=True)
        for i in range(20):
            noise = torch.randint(256, (32, 32, 3), generator=g, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(folder/f"{i}.png")
    here = ["--data", tmp_path/"pictures", "--runs", tmp_path/"runs", "--out", tmp_path]
    subprocess.run([sys.executable, ROOT/"tools"/"measure", "studies", "encodings", *OPTIONS, *here], check=True)
    study = Study(tmp_path/"encodings-cifar10.json")
    assert study.arms == ["dct", "integer-dct", "separable-cosine", "sincos", "none"]
    assert study.record["command"].endswith("--scale cifar10")
    for arm in study.arms:
        for mark in study.mark(arm).values(): assert len(mark["map"]) == 4 and 0 < mark["loss"] < 3

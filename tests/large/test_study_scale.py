"The studies at CIFAR-10's scale, rehearsed on a CPU: the same command as on a GPU, with a folder of pictures and two steps (about three minutes)."

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from pixnerd.studies import Study

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_a_study_at_the_larger_scale(tmp_path):
    g = torch.Generator().manual_seed(0)
    for k in range(3):
        (tmp_path/"pictures"/f"c{k}").mkdir(parents=True)
        for i in range(20): Image.fromarray(torch.randint(256, (32, 32, 3), generator=g, dtype=torch.uint8).numpy()).save(tmp_path/"pictures"/f"c{k}"/f"{i}.png")
    subprocess.run([sys.executable, ROOT/"tools"/"studies.py", "encodings", "--scale", "cifar10", "--data", tmp_path/"pictures", "--steps", "2", "--batch", "4", "--samples", "0",
                    "--seeds", "1", "--device", "cpu", "--runs", tmp_path/"runs", "--out", tmp_path], check=True)
    study = Study(tmp_path/"encodings-cifar10.json")
    assert study.arms == ["dct", "integer-dct", "separable-cosine", "sincos", "none"] and study.record["command"].endswith("--scale cifar10")
    assert all(len(mark["map"]) == 4 and 0 < mark["loss"] < 3 for arm in study.arms for mark in study.mark(arm).values())

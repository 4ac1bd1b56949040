"The model that ships with the package: there after a plain install, offline, and as good as its metrics say."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixnerd import make_noise, sample
from pixnerd.checkpoints import SHIPPED, from_pretrained
from pixnerd.sample_folders import TextSampler
from pixnerd.evaluation import evaluate_digits
from pixnerd.samplers import RECOMMENDED, RECOMMENDED_TEXT
from pixnerd.scene_eval import scene_prompts, score_scenes
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def measured() -> dict:
    "The three numbers for 500 samples of the shipped model."
    labels = torch.arange(500) % 10
    images = sample(from_pretrained("digits"), make_noise(range(500), (1, 32, 32)), labels, torch.full_like(labels, 10), RECOMMENDED)
    return evaluate_digits(images, labels)


def test_samples_are_what_was_asked_for_varied_and_new(measured):
    assert measured["judge_on_held_out"] >= .97
    assert measured["accuracy"] >= .99
    assert measured["variety"] >= .65
    assert measured["novelty"] >= .8


def test_the_record_says_what_is_measured(measured):
    record = json.loads((SHIPPED["digits"]/"metrics.json").read_text())
    assert record["samples"] == 500
    for name in ("accuracy", "variety", "novelty"): assert record[name] == pytest.approx(measured[name], abs=.01)
    assert json.loads((SHIPPED["digits"]/"training.json").read_text())["command"].startswith("pixnerd-train ")
    assert sum(p.stat().st_size for p in SHIPPED["digits"].iterdir()) <= 4e6


def test_scenes_are_drawn_as_asked_on_compositions_never_shown():
    "A part of what its record was measured on, measured again: far above shuffled prompts, and near the record."
    folder, model, record = SHIPPED["scenes"], from_pretrained("scenes"), json.loads((SHIPPED["scenes"]/"metrics.json").read_text())["held-out"]
    prompts = {skill: texts[:12] for skill, texts in scene_prompts(50, "held-out").items()}
    texts = [text for some in prompts.values() for text in some]
    images = TextSampler(model, encoder_of(model), RECOMMENDED_TEXT)(texts, [50 * (i // 12) + i % 12 for i in range(len(texts))])
    found = score_scenes(prompts, dict(zip(prompts, images.split(12))))
    assert found["overall"]["low"] > found["control"]["high"] and found["overall"]["rate"] > record["overall"]["rate"] - .15
    assert all(skill["low"] > skill["control"]["high"] for skill in record["skills"].values())
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 12e6 and json.loads((folder/"training.json").read_text())["command"].startswith("pixnerd-train --data scenes ")


def test_a_plain_install_has_it_offline(tmp_path):
    built = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", tmp_path/"site", ROOT],
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    code = "import pixnerd; print(pixnerd.__file__); print(sum(p.numel() for p in pixnerd.PixNerd.from_pretrained('digits').parameters()))"
    used = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path/"site"), "HF_HUB_OFFLINE": "1"})
    assert used.returncode == 0, used.stderr
    where, count = used.stdout.split()
    assert Path(where).is_relative_to(tmp_path) and int(count) > 1e6

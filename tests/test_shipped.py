"The models that ship with the package: there after a plain install, offline, and as good as their metrics say."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixnerd.checkpoints import SHIPPED, from_pretrained
from pixnerd.evaluation import evaluate_digits
from pixnerd.sample_folders import TextSampler, draw_images
from pixnerd.samplers import RECOMMENDED, RECOMMENDED_TEXT
from pixnerd.scene_eval import scene_prompts, score_scenes
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parent.parent


def record_of(name: str, file: str) -> dict: return json.loads((SHIPPED[name]/file).read_text())


def size_of(name: str) -> int: return sum(p.stat().st_size for p in SHIPPED[name].iterdir())


@pytest.fixture(scope="module")
def measured() -> dict:
    "The three numbers for 500 samples of the shipped model."
    labels = [i % 10 for i in range(500)]
    images = draw_images(from_pretrained("digits"), labels, RECOMMENDED, batch=500)
    return evaluate_digits(images, torch.tensor(labels))


def test_samples_are_what_was_asked_for_varied_and_new(measured):
    assert measured["judge_on_held_out"] >= .97
    assert measured["accuracy"] >= .99
    assert measured["variety"] >= .65
    assert measured["novelty"] >= .8


def test_the_record_says_what_is_measured(measured):
    record = record_of("digits", "metrics.json")
    assert record["samples"] == 500
    for name in ("accuracy", "variety", "novelty"): assert record[name] == pytest.approx(measured[name], abs=.01)
    assert record_of("digits", "training.json")["command"].startswith("pixnerd-train ")
    assert size_of("digits") <= 4e6


def test_scenes_are_drawn_as_asked_on_compositions_never_shown():
    "A part of what its record was measured on, measured again: far above shuffled prompts, and near the record."
    model, record = from_pretrained("scenes"), record_of("scenes", "metrics.json")["held-out"]
    prompts = {skill: texts[:12] for skill, texts in scene_prompts(50, "held-out").items()}
    texts = [text for some in prompts.values() for text in some]
    numbers = [50 * (i // 12) + i % 12 for i in range(len(texts))]
    images = TextSampler(model, encoder_of(model), RECOMMENDED_TEXT)(texts, numbers)
    found = score_scenes(prompts, dict(zip(prompts, images.split(12))))
    assert found["overall"]["low"] > found["control"]["high"]
    assert found["overall"]["rate"] > record["overall"]["rate"] - .15
    assert all(skill["low"] > skill["control"]["high"] for skill in record["skills"].values())
    assert record_of("scenes", "training.json")["command"].startswith("pixnerd-train --data scenes ")
    assert size_of("scenes") <= 12e6


def test_a_plain_install_has_it_offline(tmp_path):
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", tmp_path/"site"]
    built = subprocess.run([sys.executable, "-m", "pip", "install", *options, ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    code = ("import pixnerd; print(pixnerd.__file__); "
            "print(sum(p.numel() for p in pixnerd.PixNerd.from_pretrained('digits').parameters()))")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path/"site"), "HF_HUB_OFFLINE": "1"}
    used = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert used.returncode == 0, used.stderr
    where, count = used.stdout.split()
    assert Path(where).is_relative_to(tmp_path) and int(count) > 1e6

"The commands as a user meets them: real processes, one line for a mistake, nothing overwritten."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import fresh
from pixnerd import PixNerd, cli, from_pretrained

ROOT = Path(__file__).resolve().parent.parent


def code(command: str) -> str: return f"from pixnerd.cli import {command}_command; {command}_command()"


def run(command: str, *arguments) -> subprocess.CompletedProcess:
    "Run a command in a process of its own, without a network."
    return fresh.run(code(command), *arguments)


def start(command: str, *arguments, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    "The same, with the whole start of Python."
    return subprocess.run([sys.executable, "-c", code(command), *arguments], cwd=cwd, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", **environment})


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "demo"])
def test_help_shows_defaults(command):
    done = start(command, "--help")
    assert done.returncode == 0 and f"usage: pixnerd-{command}" in done.stdout and "(default: " in done.stdout
    assert {"--seed", "--device", "--out"} <= set(done.stdout.replace(",", " ").split())


@pytest.fixture
def broken(tmp_path) -> Path:
    "Models with something wrong, and a file where a folder is expected."
    model = PixNerd.from_preset("digits")
    for name in ("cut", "other", "noconfig", "badconfig"): model.save_pretrained(tmp_path/name)
    weights = tmp_path/"cut"/"model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    config = tmp_path/"other"/"config.json"
    config.write_text(config.read_text().replace('"width": 128', '"width": 64'))
    (tmp_path/"noconfig"/"config.json").unlink()
    (tmp_path/"badconfig"/"config.json").write_text("{not json")
    (tmp_path/"file").write_text("kept")
    (tmp_path/"full").mkdir()
    (tmp_path/"empty"/"checkpoints").mkdir(parents=True)
    (tmp_path/"full"/"mine.txt").write_text("kept")
    return tmp_path


@pytest.mark.parametrize("command, arguments, message", [
    ("train", ["--preset", "M/16"], "preset must be one of L/16"), ("train", ["--data", "mnist"], "data must be one of digits, scenes, cifar10, a folder, hub:OWNER/NAME or stream:OWNER/NAME, got 'mnist'"),
    ("train", ["--steps", "0"], "steps must be at least 1 and less than 9.22337e+18, got 0"), ("train", ["--steps", "many"], "argument --steps: invalid int value: 'many'"),
    ("train", ["--lr", "nan"], "lr must be at least 1e-12 and less than 1000, got nan"), ("train", ["--device", "gpu"], "device must be one of auto, cpu, cuda, got 'gpu'"),
    ("train", ["--out", "file/run"], "file/run"),
    ("train", ["--model", "encoding=fourier"], "encoding must be one of dct"), ("train", ["--model", "encodng=dct"], "model must change one of patch"), ("train", ["--model", "depth=two"], "model: depth must be int, got 'two'"),
    ("train", ["--model", "patch=5"], "patch must divide image_size 32, got 5"), ("train", ["--model", "head=linear", "--start-from", "digits"], "give one of them, got model 'head=linear'"),
    ("train", ["--seed", "-1"], "seed must be at least 0"), ("train", ["--seed", "99999999999999999999999"], "seed must be at least 0 and less than 9.22337e+18"),
    ("train", ["--out", "noconfig"], "holds files but no config.json of a run"), ("train", ["--out", "other"], "other/config.json is not the configuration of a run"),
    ("train", ["--out", "badconfig"], "badconfig/config.json is damaged"), ("train", ["--out", ""], "out must name a folder"), ("train", ["--time-shift", "inf"], "time_shift must be at least 1e-06 and less than 1e+06, got inf"),
    ("sample", ["--seed", "-1"], "seed must be whole, from 0"), ("sample", ["--time-shift", "inf"], "time_shift must be greater than 0 and finite"), ("sample", ["--guidance-scale", "1e308"], "the model drew NaN or infinity"),
    ("sample", ["--model", "file"], "is damaged, or no checkpoint written by torch.save"), ("sample", ["--model", "empty"], "is a run without a checkpoint yet"), ("sample", ["--steps", "9999999999"], "steps must be a whole number from 1 to 100000"), ("train", ["--colour", "red"], "unrecognized arguments: --colour red"),
    ("sample", ["--model", "digts"], "no model 'digts': must be a folder"), ("sample", ["--model", "nowhere/at/all"], "no model 'nowhere/at/all'"),
    ("sample", ["--model", "cut"], "cut/model.safetensors is damaged"), ("sample", ["--model", "other"], "do not fit the model"),
    ("sample", ["--model", "noconfig"], "no config.json in noconfig"), ("sample", ["--model", "badconfig"], "badconfig/config.json is damaged"),
    ("sample", ["--classes", "10"], "classes must be 0 to 9, got '10'"), ("sample", ["--classes", "cat"], "such as 0-9 or 1,3,5-7, got 'cat'"),
    ("sample", ["--steps", "0"], "steps must be at least 1, got 0"), ("sample", ["--method", "magic"], "method must be one of euler"),
    ("sample", ["--total", "0"], "total must be at least 1, got 0"), ("sample", ["--total", "5", "--count", "2"], "count and total both say how many images"), ("sample", ["--no-images"], "no-images without npz would keep nothing"),
    ("sample", ["--size", "33"], "size must be a multiple of 4, the patches a side, got 33"), ("sample", ["--size", "0"], "size must be at least 1, got 0"), ("sample", ["--out", "full"], "full already exists and is not an empty folder"),
    ("sample", ["--out", "file"], "file already exists"), ("sample", ["--guidance-scale", "nan"], "guidance_scale must be a finite number, got nan"),
    ("demo", ["--samples", "3"], "samples must be at least 20"), ("demo", ["--out", "file/demo"], "file/demo")], ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_mistake_gets_one_line_and_changes_nothing(broken, command, arguments, message, monkeypatch, capsys):
    before = {p: p.stat().st_mtime_ns for p in broken.rglob("*")}
    monkeypatch.chdir(broken)
    monkeypatch.setattr(sys, "argv", [f"pixnerd-{command}", *arguments])
    with pytest.raises(SystemExit) as stopped: getattr(cli, f"{command}_command")()
    said = capsys.readouterr().err
    told = [line for line in said.splitlines() if line and not line.startswith(("usage:", "     ", "sample:", "\rsample:"))]
    assert stopped.value.code == 2 and len(told) == 1 and message in told[0], said
    assert {p: p.stat().st_mtime_ns for p in broken.rglob("*")} == before


def test_a_mistake_in_a_real_process(broken):
    done = start("sample", "--model", "cut", cwd=broken, PYTHONPATH=str(ROOT))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is damaged" in done.stderr and not done.stdout


def test_a_preset_with_changes_is_trained_kept_and_not_continued_as_another(tmp_path):
    short = ["--steps", 2, "--batch", 8, "--out", tmp_path/"run", "--model"]
    done = run("train", *short, "encoding=sincos normalise=W1 field_depth=2")
    assert done.returncode == 0, done.stderr
    config = from_pretrained(tmp_path/"run"/"checkpoints"/"step-000002").config
    assert (config.encoding, config.normalise, config.field_depth, config.num_classes) == ("sincos", ("W1",), 2, 10)
    other = run("train", *short, "encoding=dct")
    assert other.returncode == 2 and "model was encoding=sincos normalise=W1 field_depth=2 in the run" in other.stderr


def test_samples_are_fixed_by_seed_and_index(tmp_path):
    some = ["--steps", 4, "--seed", 5, "--count", 2]
    assert run("sample", *some, "--classes", "0-3", "--out", tmp_path/"a").returncode == 0
    assert run("sample", *some, "--classes", "0-3", "--batch", 3, "--out", tmp_path/"b").returncode == 0
    images = sorted(p.name for p in (tmp_path/"a"/"images").iterdir())
    assert images[:2] == ["000000-class0.png", "000001-class1.png"] and len(images) == 8
    for name in images:
        a, b = (torch.frombuffer(bytearray(Image.open(tmp_path/x/"images"/name).tobytes()), dtype=torch.uint8).int() for x in "ab")
        assert (a - b).abs().max() <= 1                     # batches of another size add in another order
    record = json.loads((tmp_path/"a"/"samples.json").read_text())
    assert record["seed"] == 5 and record["sampler"]["steps"] == 4 and record["made_by"]["device"]


def test_larger_images_than_trained(tmp_path):
    done = run("sample", "--classes", "3", "--count", 1, "--steps", 4, "--size", 64, "--out", tmp_path/"a")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path/"a"/"images"/"000000-class3.png").size == (64, 64)


def test_the_demo_leaves_everything_it_promises_and_goes_on(tmp_path):
    demo = ["--steps", 8, "--batch", 8, "--samples", 20, "--save-every", 4, "--log-every", 2, "--out", tmp_path/"demo"]
    done = run("demo", *demo)
    assert done.returncode == 0, done.stderr
    found = {p.name for p in (tmp_path/"demo").iterdir()}
    assert {"samples.png", "denoising.gif", "loss.png", "metrics.json", "log.jsonl", "checkpoints"} <= found
    metrics = json.loads((tmp_path/"demo"/"metrics.json").read_text())
    assert {"accuracy", "variety", "novelty", "judge_on_held_out", "samples", "made_by"} <= metrics.keys() and metrics["judge_on_held_out"] >= .97
    assert Image.open(tmp_path/"demo"/"denoising.gif").n_frames == 26
    assert "look at" in done.stdout and "pixnerd-sample" in done.stdout
    again = run("demo", *demo)
    assert again.returncode == 0 and "from step 8" in again.stdout
    assert json.loads((tmp_path/"demo"/"metrics.json").read_text())["accuracy"] == metrics["accuracy"]
    assert from_pretrained(tmp_path/"demo"/"checkpoints"/"step-000008").config.num_classes == 10

"The commands as a user meets them: one line for a mistake, nothing overwritten, the same samples for the same words."

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import odd_input
import pytest
import torch
from PIL import Image

from pixnerd import PixNerd, cli, from_pretrained
from pixnerd.samplers import SamplerSettings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(capsys):
    "Runs a command in this process: its exit code, and what it said on both outputs."
    def run(command: str, *arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try: cli.run_command(cli.COMMANDS[f"pixnerd-{command}"], list(map(str, arguments)))
        except SystemExit as left: code = left.code or 0
        return code, *capsys.readouterr()
    return run


def start(command: str, *arguments, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    "The same as the shell does it, in a process of its own."
    code = f"from pixnerd.cli import {command}_command; {command}_command()"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env=environment)


# Help

@pytest.mark.parametrize("command", [name.removeprefix("pixnerd-") for name in cli.COMMANDS])
def test_help_shows_defaults(command, run):
    code, said, _ = run(command, "--help")
    assert code == 0 and f"usage: pixnerd-{command}" in said and "(default: " in said
    assert {"--seed", "--device", "--out"} <= set(said.replace(",", " ").split())


def test_whatever_a_sampler_can_be_told_is_an_option(run):
    for command in ("sample", "evaluate"):
        said = run(command, "--help")[1]
        for f in fields(SamplerSettings): assert f"--{f.name.replace('_', '-')} " in said, f.name


# Mistakes

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
    (tmp_path/"full"/"mine.txt").write_text("kept")
    (tmp_path/"empty"/"checkpoints").mkdir(parents=True)
    (tmp_path/"labels.txt").write_text("3\n12\n")
    (tmp_path/"nuls.yaml").write_text('out: "a\\0b"\n')
    (tmp_path/"empty.yaml").write_text("data: ''\n")
    (tmp_path/"nobody.yaml").write_text("out: ~nosuchuser/run\n")
    return tmp_path


MISTAKES = {
    "train --preset M/16": "preset must be one of digits, scenes, S/2",
    "train --data mnist": "data must be one of digits, scenes, cifar10, a folder, hub:OWNER/NAME or stream:OWNER/NAME, "
                          "got 'mnist'",
    "train --steps 0": "steps must be at least 1 and less than 9.22337e+18, got 0",
    "train --steps many": "argument --steps: invalid int value: 'many'",
    "train --lr nan": "lr must be at least 1e-12 and less than 1000, got nan",
    "train --device gpu": "device must be one of auto, cpu, cuda, mps, got 'gpu'",
    "train --out file/run": "file/run",
    "train --model encoding=fourier": "encoding must be one of dct",
    "train --model encodng=dct": "model must change one of patch",
    "train --model depth=two": "model: depth must be int, got 'two'",
    "train --model patch=5": "patch must divide image_size 32, got 5",
    "train --model head=linear --start-from digits": "give one of them, got model 'head=linear'",
    "train --seed -1": "seed must be at least 0",
    "train --seed 99999999999999999999999": "seed must be at least 0 and less than 9.22337e+18",
    "train --out noconfig": "holds files but no config.json of a run",
    "train --out other": "other/config.json is not the configuration of a run",
    "train --out badconfig": "badconfig/config.json is damaged",
    "train --out ": "argument --out: must not be empty, got ''",
    "train --data ": "argument --data: must not be empty, got ''",
    "train --recipe ": "argument --recipe: must not be empty, got ''",
    "train --recipe nuls.yaml": "argument --out: must hold no NUL character, got 'a\\x00b'",
    "train --recipe empty.yaml": "argument --data: must not be empty, got ''",
    "train --recipe nobody.yaml": "argument --out: ~nosuchuser/run names a home folder that is not known",
    "train --data ~nosuchuser": "argument --data: ~nosuchuser names a home folder that is not known",
    "train --start-from ~nosuchuser/run": "argument --start-from: ~nosuchuser/run names a home folder",
    "train --time-shift inf": "time_shift must be at least 1e-06 and less than 1e+06, got inf",
    "train --colour red": "unrecognized arguments: --colour red",
    "train --recipe nowhere.yaml": "recipe nowhere.yaml does not exist",
    "sample --seed -1": "seed must be whole, from 0",
    "sample --time-shift inf": "time_shift must be greater than 0 and finite",
    "sample --guidance-scale 1e308": "the model drew NaN or infinity",
    "sample --guidance-scale nan": "guidance_scale must be a finite number, got nan",
    "sample --guidance-interval 1 0": "guidance_interval must be two times, the lower first",
    "sample --guidance-interval 0.1": "argument --guidance-interval: expected 2 arguments",
    "sample --out ": "argument --out: must not be empty",
    "sample --model ": "argument --model: must not be empty",
    "sample --labels ~nosuchuser/l.txt": "argument --labels: ~nosuchuser/l.txt names a home folder",
    "sample --model file": "is damaged, or no checkpoint written by torch.save",
    "sample --model empty": "is a run without a checkpoint yet",
    "sample --model digts": "no model 'digts': must be a folder",
    "sample --model nowhere/at/all": "no model 'nowhere/at/all'",
    "sample --model cut": "cut/model.safetensors is damaged",
    "sample --model other": "do not fit the model",
    "sample --model noconfig": "no config.json in noconfig",
    "sample --model badconfig": "badconfig/config.json is damaged",
    "sample --classes 10": "must be an id from 0 to 9",
    "sample --classes cat": "unknown class 'cat': must be an id from 0 to 9",
    "sample --labels labels.txt": "labels labels.txt, entry 2: unknown class",
    "sample --steps 0": "steps must be a whole number from 1 to 100000, got 0",
    "sample --steps 9999999999": "steps must be a whole number from 1 to 100000",
    "sample --method magic": "method must be one of euler",
    "sample --total 0": "total must be at least 1, got 0",
    "sample --total 100000000000000000000": "total must be at most 10000000, got 100000000000000000000",
    "sample --classes 0-9 --count 9999999": "count 9999999 of 10 is more than 10000000 images in all",
    "sample --total 5 --count 2": "count and total both say how many images",
    "sample --no-images": "no-images without npz would keep nothing",
    "sample --size 33": "size must be a multiple of 4, the patches a side, got 33",
    "sample --size 0": "size must be at least 1, got 0",
    "sample --out file/x": "out file/x would be inside file, which is a file: choose another out",
    "sample --classes -1": "must be an id from 0 to 9",
    "sample --guidance-interval inf -inf": "guidance_interval must be two times, the lower first, got inf, -inf",
    "sample --out full": "full already exists and is not an empty folder",
    "sample --out file": "file already exists",
    "demo --data scenes": "the demo's judge knows digits of 32 pixels",
    "demo --size 64": "the demo's judge knows digits of 32 pixels",
    "demo --samples 3": "samples must be at least 20",
    "demo --out file/demo": "file/demo",
    "demo --out ~nosuchuser": "~nosuchuser names a home folder that is not known",
    "evaluate --samples full --out file": "out file is a file: choose a folder",
    "evaluate --samples full --reference digits --save-statistics no/s.npz": "save-statistics no/s.npz is in no folder",
    "evaluate --samples full --reference full --split nonsense": "split must be one of train, held-out, got 'nonsense'",
    "evaluate --samples full --reference digits --crop": "crop is for a reference that is a folder of images",
    "evaluate --samples=--": "samples needs a value, got '--'",
    "evaluate --samples ": "argument --samples: must not be empty",
    "evaluate --samples ~nosuchuser/s": "~nosuchuser/s names a home folder that is not known",
    "evaluate --compare ~nosuchuser/m.json": "~nosuchuser/m.json names a home folder",
    "bench --out ": "argument --out: must not be empty",
    "bench --out ~nosuchuser/b.json": "~nosuchuser/b.json names a home folder",
    "bench --variants ours": "variants must be of published",
}


def told(said: str) -> list[str]:
    "The lines of an error that are no progress."
    beside = ("sample:", "\rsample:")
    return [line for line in said.splitlines() if line and not line.startswith(beside)]


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_one_line_and_changes_nothing(broken, line, run, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in broken.rglob("*")}
    monkeypatch.chdir(broken)
    code, _, said = run(*line.split(" "))
    assert code == 2 and len(told(said)) == 1 and MISTAKES[line] in told(said)[0], said
    assert {p: p.stat().st_mtime_ns for p in broken.rglob("*")} == before


def test_a_mistake_in_a_real_process(broken):
    "Also where a cluster's shell still has the number of a process set, that is none here."
    done = start("sample", "--model", "cut", cwd=broken, RANK="3")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is damaged" in done.stderr and not done.stdout


@pytest.mark.parametrize("stray", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"},
                                   {"LOCAL_RANK": "0"}, {"WORLD_SIZE": "many", "RANK": "x", "MASTER_ADDR": "node"}])
def test_stray_numbers_of_a_cluster_are_no_launcher(stray, monkeypatch, run, tmp_path):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"): monkeypatch.delenv(name, raising=False)
    for name, value in stray.items(): monkeypatch.setenv(name, value)
    code, said, wrong = run("sample", "--classes", 3, "--count", 1, "--steps", 1, "--out", tmp_path/"a")
    assert code == 0 and said.startswith("1 images in"), wrong
    warned = [line for line in wrong.split("\n") if line.startswith("warning: one process alone")]
    assert len(warned) == ("WORLD_SIZE" in stray)


def test_paths_that_are_no_text_and_lines_that_break_stay_one_line(tmp_path):
    done = start("sample", "--classes", 3, "--count", 1, "--steps", 1, "--out", "a\udcff", cwd=tmp_path)
    assert done.returncode == 0 and "a\\udcff/samples.png" in done.stdout, done.stderr
    done = start("sample", "--model", "no\nmodel\u2028\x1b[31m", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr
    done = start("sample", "--prompt", "a \udcff star", cwd=tmp_path)
    assert done.returncode == 2 and "argument --prompt: must be UTF-8 text" in done.stderr


def test_whatever_is_typed_or_stands_in_a_recipe_is_answered_by_one_line(tmp_path, monkeypatch):
    "Some of what tests/large/test_odd_input.py tries thousands of."
    odd_input.fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = odd_input.odd_lines(1, 200, tmp_path)
    found = {" ".join(words)[:300]: odd_input.hostile(words, slow=20) for words in lines}
    assert not {words: what for words, what in found.items() if what[0] not in ("refused", "begun", "done")}
    bomb = odd_input.nested_bomb("out", 30) # 8 ** 30 texts, were it written out
    (tmp_path/"recipe.yaml").write_text(bomb)
    said = odd_input.hostile(["train", "--recipe", "recipe.yaml"])
    assert said[:2] == ("refused", "error: recipe recipe.yaml: out must be one plain value, got a list")


# Training

def test_a_preset_with_changes_is_trained_kept_and_not_continued_as_another(run, tmp_path):
    short = ["--steps", 2, "--batch", 8, "--out", tmp_path/"run", "--model"]
    code, _, said = run("train", *short, "encoding=sincos normalise=W1 field_depth=2")
    assert code == 0, said
    config = from_pretrained(tmp_path/"run"/"checkpoints"/"step-000002").config
    assert (config.encoding, config.normalise, config.field_depth) == ("sincos", ("W1",), 2)
    assert config.num_classes == 10
    code, _, said = run("train", *short, "encoding=dct")
    assert code == 2 and "model was encoding=sincos normalise=W1 field_depth=2 in the run" in said


def test_a_tilde_is_the_home_folder(run, tmp_path, monkeypatch):
    (tmp_path/"home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path/"home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path/"home"/"recipe.yaml").write_text("out: ~/run\nsteps: 1\nbatch: 4\n")
    assert run("train", "--recipe=~/recipe.yaml")[0] == 0
    assert run("sample", "--model=~/run", "--classes", 3, "--count", 1, "--steps", 1, "--out=~/drawn")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]
    assert sorted(p.name for p in (tmp_path/"home").iterdir()) == ["drawn", "recipe.yaml", "run"]


# Samples

def pixels(path: Path) -> torch.Tensor:
    return torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8).int()


def test_samples_are_fixed_by_seed_and_index(run, tmp_path):
    some = ["--steps", 4, "--seed", 5, "--count", 2, "--classes", "0-3"]
    assert run("sample", *some, "--out", tmp_path/"a")[0] == 0
    assert run("sample", *some, "--batch", 3, "--out", tmp_path/"b")[0] == 0
    images = sorted(p.name for p in (tmp_path/"a"/"images").iterdir())
    assert images[:2] == ["000000-class0.png", "000001-class1.png"] and len(images) == 8
    for name in images: # batches of another size add in another order
        assert (pixels(tmp_path/"a"/"images"/name) - pixels(tmp_path/"b"/"images"/name)).abs().max() <= 1
    record = json.loads((tmp_path/"a"/"samples.json").read_text())
    assert record["seed"] == 5 and record["sampler"]["steps"] == 4 and record["made_by"]["device"]


def test_classes_are_asked_for_by_the_names_a_model_was_trained_with(run, tmp_path):
    config = replace(PixNerd.from_preset("digits").config, num_classes=3, class_names=("cat", "dog", "guinea pig"))
    PixNerd(config).save_pretrained(tmp_path/"pets")
    some = ["--model", tmp_path/"pets", "--steps", 1]
    code, told, said = run("sample", *some, "--classes", "Guinea pig,0", "--count", 1, "--out", tmp_path/"a")
    assert code == 0 and told.startswith("2 images of cat, guinea pig in "), said
    assert json.loads((tmp_path/"a"/"samples.json").read_text())["names"] == {"0": "cat", "2": "guinea pig"}
    assert sorted(p.name for p in (tmp_path/"a"/"images").iterdir()) == ["000000-class2.png", "000001-class0.png"]
    code, _, said = run("sample", *some, "--classes", "catt", "--out", tmp_path/"b")
    assert code == 2 and "unknown class 'catt': did you mean cat" in said


def test_class_names_with_commas_and_spaces(run, tmp_path):
    names = (" lead", "trail ", "with, comma")
    config = replace(PixNerd.from_preset("digits").config, num_classes=3, class_names=names)
    PixNerd(config).save_pretrained(tmp_path/"odd")
    (tmp_path/"labels.txt").write_text('trail\n"with, comma"\nlead\nwith, comma\n')
    for out, asked, classes in [("a", ["--classes", "with, comma", "--count", 1], "2"),
                                ("b", ["--classes", '"with, comma",trail, lead', "--count", 1], "210"),
                                ("c", ["--labels", tmp_path/"labels.txt"], "1202")]:
        code, _, said = run("sample", "--model", tmp_path/"odd", "--steps", 1, *asked, "--out", tmp_path/out)
        assert code == 0, said
        assert [p.stem[-1] for p in sorted((tmp_path/out/"images").iterdir())] == list(classes)


def test_guidance_that_never_acts_is_not_warned_of(run, tmp_path):
    PixNerd(replace(PixNerd.from_preset("digits").config, null_class=False)).save_pretrained(tmp_path/"m")
    for out, interval, warned in [("a", ("2", "3"), False), ("b", ("-inf", "inf"), True)]:
        code, _, said = run("sample", "--model", tmp_path/"m", "--classes", 3, "--count", 1, "--steps", 2, "--out",
                            tmp_path/out, "--guidance-scale", 3, "--guidance-interval", *interval)
        assert code == 0 and ("warning: guidance leads away" in said) is warned, said
        assert all(line.strip().startswith("warning") for line in said.splitlines() if "warning" in line), said


def test_what_a_reference_is_read_as(run, tmp_path):
    for i in range(12):
        for part in ("train", "val"):
            (tmp_path/"real"/part).mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 20 * i).save(tmp_path/"real"/part/f"{i}.png")
    (tmp_path/"real"/"val"/"11.png").unlink()
    np.savez(tmp_path/"s.npz", arr_0=np.zeros((12, 32, 32, 1), np.uint8), arr_1=np.zeros(5))
    some = ["--samples", tmp_path/"s.npz", "--metrics", "fid", "--extractor", "digits"]
    code, _, said = run("evaluate", *some, "--reference", tmp_path/"real", "--split", "held-out", "--out", tmp_path/"a")
    assert code == 0 and "s.npz has 5 labels for 12 images" in said, said
    reference = json.loads((tmp_path/"a"/"metrics.json").read_text())["reference"]
    assert reference["source"] == str(tmp_path/"real"/"val") and reference["count"] == 11
    for other in (tmp_path/"s.npz", tmp_path/"real"/"train"):
        code, _, said = run("evaluate", *some, "--reference", other, "--split", "held-out", "--out", tmp_path/"b")
        assert code == 2 and "split held-out is for data sets and folders with splits" in said, said


def test_labels_from_a_file(run, tmp_path):
    (tmp_path/"labels.txt").write_text("7\n1\n7\n")
    assert run("sample", "--labels", tmp_path/"labels.txt", "--steps", 1, "--out", tmp_path/"a")[0] == 0
    names = sorted(p.name for p in (tmp_path/"a"/"images").iterdir())
    assert names == ["000000-class7.png", "000001-class1.png", "000002-class7.png"]


def test_larger_images_than_trained(run, tmp_path):
    some = ["--classes", 3, "--count", 1, "--steps", 4, "--size", 64]
    for out, more in (("a", []), ("b", ["--base-size", 32, 32]), ("c", ["--base-size", 64, 64])):
        code, _, said = run("sample", *some, *more, "--out", tmp_path/out)
        assert code == 0, said
    a, b, c = (tmp_path/out/"images"/"000000-class3.png" for out in "abc")
    assert Image.open(a).size == (64, 64)
    assert torch.equal(pixels(a), pixels(b)) and not torch.equal(pixels(a), pixels(c))


# The demo

def test_the_demo_leaves_everything_it_promises_and_goes_on(run, tmp_path):
    out = tmp_path/"demo"
    demo = ["--steps", 8, "--batch", 8, "--samples", 20, "--save-every", 4, "--log-every", 2, "--out", out]
    code, said, wrong = run("demo", *demo)
    assert code == 0, wrong
    promised = {"samples.png", "denoising.gif", "loss.png", "metrics.json", "log.jsonl", "checkpoints"}
    assert promised <= {p.name for p in out.iterdir()}
    metrics = json.loads((out/"metrics.json").read_text())
    assert {"accuracy", "variety", "novelty", "judge_on_held_out", "samples", "made_by"} <= metrics.keys()
    assert metrics["judge_on_held_out"] >= .97
    assert Image.open(out/"denoising.gif").n_frames == 26
    assert "look at" in said and "pixnerd-sample" in said
    code, said, _ = run("demo", *demo)
    assert code == 0 and "from step 8" in said
    assert json.loads((out/"metrics.json").read_text())["accuracy"] == metrics["accuracy"]
    assert from_pretrained(out/"checkpoints"/"step-000008").config.num_classes == 10


def test_the_demo_trains_as_it_always_has():
    c = cli.DEMO
    assert (c.data, c.preset, c.steps, c.batch, c.lr, c.ema, c.warmup) == ("digits", "digits", 1200, 64, 4e-3, .995, 50)
    assert (c.beta2, c.decay, c.weight_decay, c.clip, c.label_drop) == (.999, True, 0, 1, .1)

"Studies: one yardstick for all arms, intervals as in the books, runs that survive a kill, and a command."

import json
import math
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pixnerd import from_pretrained
from pixnerd.data import load_data
from pixnerd.model import PRESETS, count_parameters
from pixnerd.studies import (
    ERROR, Arm, Difference, HeldOut, Scale, Study, _run_name, held_out_error, interval, match_parameters)

ROOT = Path(__file__).resolve().parent.parent
TINY = Scale("digits", "digits", size=32, patch=8, steps=4, batch=8, lr=1e-3, ema=.9, samples=0)
numbers = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_the_interval_is_students(values):
    from scipy.stats import ttest_1samp
    found = interval(values)
    if len(set(values)) == 1: assert found.half < 1e-9 * max(1, abs(values[0]))
    else:
        low, high = ttest_1samp(values, 0).confidence_interval(.95)
        assert found.mean - found.half == pytest.approx(low, rel=1e-6, abs=1e-6)
        assert found.mean + found.half == pytest.approx(high, rel=1e-6, abs=1e-6)


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_verdicts_turn_with_the_sign_and_are_silent_where_zero_lies_within(values):
    there, back = interval(values), interval([-v for v in values])
    assert {there.verdict(), back.verdict()} in ({"better", "worse"}, {"not resolved"})
    assert (there.verdict() == "not resolved") == (there.mean - there.half <= 0 <= there.mean + there.half)
    assert there.verdict(lower_is_better=False) == back.verdict()


def test_one_seed_resolves_nothing():
    assert not Difference(-5., math.inf, 1).resolved and interval([7.]).verdict() == "not resolved"


def test_the_yardstick_does_not_depend_on_the_model_or_the_batch():
    on = HeldOut.of(load_data("digits", "held-out"), 100)
    again = HeldOut.of(load_data("digits", "held-out"), 100)
    assert torch.equal(on.x, again.x) and torch.equal(on.noise, again.noise) and torch.equal(on.t, again.t)
    model = from_pretrained("digits")
    whole, parts = held_out_error(model, on, batch=100), held_out_error(model, on, batch=17)
    assert math.isclose(whole["loss"], parts["loss"], rel_tol=1e-5)
    train = {image.numpy().tobytes() for image in load_data("digits", "train").images}
    assert not [x for x in on.x if x.numpy().tobytes() in train], "a training image among those held out"


def test_the_parts_of_the_error_add_up():
    found = held_out_error(from_pretrained("digits"), HeldOut.of(load_data("digits", "held-out"), 120))
    assert math.isclose(sum(found["by_time"]) / 10, found["loss"], rel_tol=1e-3)
    assert math.isclose(torch.tensor(found["map"]).mean().item(), found["loss"], rel_tol=1e-3)


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_twins_have_the_same_number_of_parameters(patch):
    field = replace(PRESETS["digits"].config, patch=patch, image_size=4 * patch)
    target = sum(count_parameters(field).values())
    twin = match_parameters(replace(field, head="linear", depth=6), target)
    assert abs(sum(count_parameters(twin).values()) / target - 1) < .003


def test_a_run_is_named_after_what_it_does():
    arm = Arm("a", "encoding=none")
    assert _run_name(TINY, arm, 0) == _run_name(TINY, replace(arm, name="b"), 0)
    others = [
        (TINY, arm, 1), (replace(TINY, lr=2e-3), arm, 0), (TINY, Arm("a", "encoding=dct"), 0),
        (TINY, replace(arm, marks=(2, 4)), 0), (TINY, replace(arm, settings=(("batch", 4),)), 0)]
    assert len({_run_name(TINY, arm, 0), *(_run_name(*other) for other in others)}) == 1 + len(others)


@pytest.fixture
def pictures(tmp_path):
    "A folder of class folders in place of CIFAR-10: three classes of coloured noise."
    g = torch.Generator().manual_seed(0)
    for k in range(3):
        folder = tmp_path/"pictures"/f"c{k}"
        folder.mkdir(parents=True)
        for i in range(20):
            noise = torch.randint(256, (32, 32, 3), generator=g, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(folder/f"{i}.png")
    return tmp_path/"pictures"


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_every_arm_of_every_study_can_be_built_at_both_scales(name, pictures):
    from measure import studies
    scale = studies.SCALES[name] if name == "digits" else replace(studies.SCALES[name], data=str(pictures))
    for make in studies.TRAINED.values():
        arms = make(scale, lambda *_: 1.5)
        assert len({arm.name for arm in arms}) == len(arms) >= 2
        for arm in arms:
            assert scale.parameters(arm) > 0 and scale.config(arm, 0, 10, "unused").steps == 10
        if make is studies.heads:
            for patch in studies.PATCHES:
                sizes = {arm.name: scale.parameters(arm) for arm in arms}
                assert abs(sizes[f"linear, patch {patch}"] / sizes[f"field, patch {patch}"] - 1) < .003, patch


# --- the command ---

def command(*options) -> list[str]:
    "The command line of `python tools/measure studies`."
    return [sys.executable, str(ROOT/"tools"/"measure"), "studies", *map(str, options)]


def rows(path) -> dict[tuple, list]:
    "What a results file says was measured, by arm and seed."
    return {(row["arm"], row["seed"]): row["marks"] for row in json.loads(path.read_text())["rows"]}


def test_killed_and_run_again_equals_uninterrupted(tmp_path):
    options = ["alignment", "--steps", 8, "--batch", 8, "--samples", 0, "--seeds", 1, "--device", "cpu"]
    for name in ("whole", "torn"): (tmp_path/name).mkdir()
    def line(name): return command(*options, "--runs", tmp_path/name/"runs", "--out", tmp_path/name)

    torn = subprocess.Popen(line("torn"), stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path/"torn"/"runs").glob("*/checkpoints/step-*")):
        if torn.poll() is not None or time.monotonic() > deadline: break
        time.sleep(.01)
    os.killpg(torn.pid, signal.SIGKILL)
    torn.communicate()
    assert torn.returncode == -signal.SIGKILL, "it was done before it was killed"
    assert not (tmp_path/"torn"/"alignment.json").exists()
    for name in ("torn", "whole"): subprocess.run(line(name), check=True, capture_output=True)
    assert rows(tmp_path/"torn"/"alignment.json") == rows(tmp_path/"whole"/"alignment.json")
    study = Study(tmp_path/"whole"/"alignment.json")
    assert study.arms == ["without", "with"] and [m["step"] for m in study.record["rows"][0]["marks"]] == [2, 4, 8, 16]
    assert not [p for p in (tmp_path/"torn"/"runs").iterdir() if p.is_dir()], "a run's folder was left"
    recorded = study.record["command"].split()
    assert recorded[:4] == ["python", "tools/measure", "studies", "alignment"]


@pytest.mark.parametrize("options, told", [
    (["best"], "invalid choice: 'best'"),
    (["heads", "--seeds", "0"], "--seeds: must be at least 1, got 0"),
    (["heads", "--jobs", "-1"], "--jobs: must be at least 1"),
    (["heads", "--steps", "0"], "--steps: must be at least 1"),
    (["heads", "--samples", "-3"], "--samples: must be at least 0"),
    (["solvers", "--scale", "cifar10"], "one scale: digits"),
    (["heads", "--scale", "imagenet"], "invalid choice: 'imagenet'"),
], ids=lambda v: "-".join(v) if isinstance(v, list) else "")
def test_a_mistake_gets_one_line(options, told, capsys):
    from measure import studies
    with pytest.raises(SystemExit) as stopped: studies.parse(ArgumentParser(), options)
    assert stopped.value.code == 2 and told in capsys.readouterr().err.splitlines()[-1]


def test_a_command_that_measure_has_not_gets_one_line():
    done = subprocess.run([sys.executable, ROOT/"tools"/"measure", "everything"], capture_output=True, text=True)
    assert done.returncode == 2 and "NAME must be one of studies, samplers" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("content, told", [
    ("{", "x.json is damaged, or no result"), ("[1]", "x.json is no result: expected an object"), ('{"rows": []}', "holds no rows")])
def test_other_files_are_refused_by_name(tmp_path, content, told):
    (tmp_path/"x.json").write_text(content)
    with pytest.raises(ValueError, match=told): Study(tmp_path/"x.json")


# --- what is committed ---

FILES = [p for p in sorted((ROOT/"nbs"/"studies").glob("*.ipynb"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_arm_has_every_seed(path):
    study = Study(ROOT/"nbs"/"results"/f"{path.stem}.json")
    seeds = study.record["seeds"]
    assert len(seeds) >= 3 and set(study.rows) == {(arm, seed) for arm in study.arms for seed in seeds}
    for arm in study.arms:
        assert study.parameters(arm) > 0
        if "loss" in study.mark(arm)[0]: assert all(0 < error < 3 for error in study.values(arm, ERROR))


def test_the_arms_of_the_committed_results_are_those_of_the_tool():
    from measure import studies
    for name in ("encodings", "shape", "pixels", "alignment"):
        record = Study(ROOT/"nbs"/"results"/f"{name}.json").record
        plan = studies.TRAINED[name](Scale(**record["scale"]), None)
        committed = [(arm["name"], arm["model"]) for arm in record["arms"]]
        assert committed == [(arm.name, arm.model) for arm in plan], f"python tools/measure studies {name}"

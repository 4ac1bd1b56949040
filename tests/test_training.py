"Training as a promise: the same seed gives the same weights, and nothing that kills a run costs more than the steps since its last checkpoint."

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixnerd import from_pretrained
from pixnerd.training import TrainConfig, latest_checkpoint, read_log, train

SHORT = dict(steps=12, batch=8, log_every=3, save_every=5)
ROOT = Path(__file__).resolve().parent.parent


def command(out: Path, **settings) -> list[str]:
    "The shell command of a short run."
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (SHORT | settings).items()]
    return [sys.executable, "-c", "from pixnerd.cli import train_command; train_command()", f"--out={out}", *options]


def finish(out: Path, **settings) -> str:
    "Run the command to its end; return what it said."
    done = subprocess.run(command(out, **settings), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def weights(out: Path) -> list[torch.Tensor]: return list(from_pretrained(latest_checkpoint(out)).state_dict().values())


def same(a: Path, b: Path) -> bool: return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def step_of(out: Path) -> int: return int(latest_checkpoint(out).name.removeprefix("step-"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "A short run that nothing interrupted."
    out = tmp_path_factory.mktemp("runs")/"whole"
    finish(out)
    return out


def test_two_processes_with_one_seed_agree_to_the_bit(whole, tmp_path):
    finish(tmp_path/"again")
    assert same(whole, tmp_path/"again")
    finish(tmp_path/"other", seed=1)
    assert not same(whole, tmp_path/"other")


def test_a_run_leaves_what_it_promises(whole):
    assert sorted(p.name for p in whole.iterdir()) == [".lock", "checkpoints", "config.json", "log.jsonl", "made_by.json"]
    assert [p.name for p in (whole/"checkpoints").iterdir()] == ["step-000012"]
    assert [line["step"] for line in read_log(whole)] == [3, 6, 9, 12]
    assert json.loads((whole/"config.json").read_text())["steps"] == 12
    assert {"pixnerd", "torch", "device", "cpu"} <= json.loads((whole/"made_by.json").read_text()).keys()


@pytest.mark.parametrize("signals, least", [([signal.SIGKILL], 5), ([signal.SIGINT], 6), ([signal.SIGTERM], 6)], ids=lambda v: getattr(v[0], "name", None) if isinstance(v, list) else None)
def test_killed_and_run_again_equals_uninterrupted(whole, tmp_path, signals, least):
    "The process is killed at step 6, after the checkpoint of step 5; what follows must not show it."
    out = tmp_path/"run"
    code = (f"import os; from pixnerd.training import TrainConfig; import pixnerd.cli as cli; inner = cli.train\n"
            f"def train(config):\n"
            f"    for step in inner(config):\n"
            f"        if step.step == 6: os.kill(os.getpid(), {int(signals[0])})\n"
            f"        yield step\n"
            f"cli.train = train; cli.train_command()")
    arguments = command(out)
    done = subprocess.run([sys.executable, "-c", code, *arguments[3:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if signals[0] == signal.SIGKILL else 130), done.stderr
    assert step_of(out) >= least and step_of(out) < 12
    assert f"from step {step_of(out)}" in finish(out)
    assert same(whole, out)
    drop = lambda log: [{k: v for k, v in line.items() if k != "seconds"} for line in log]
    assert [line["step"] for line in read_log(out)] == sorted({line["step"] for line in read_log(out)})
    assert drop(read_log(out))[-1] == drop(read_log(whole))[-1]


def test_a_full_disk_keeps_the_checkpoint_before(whole, tmp_path):
    "A file-size limit stands in for a full disk: writing the next checkpoint fails half-way."
    out = tmp_path/"run"
    finish(out, steps=5)
    before = weights(out)
    config = json.loads((out/"config.json").read_text()) | {"steps": 12}
    (out/"config.json").write_text(json.dumps(config))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    done = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "error: " in done.stderr
    assert step_of(out) == 5 and all(torch.equal(a, b) for a, b in zip(before, weights(out), strict=True))
    finish(out)
    assert step_of(out) == 12 and [p.name for p in (out/"checkpoints").iterdir()] == ["step-000012"]


@pytest.mark.parametrize("name", ["training.pt", "model.safetensors", "config.json"])
def test_a_damaged_checkpoint_is_named(whole, tmp_path, name):
    out = tmp_path/"run"
    subprocess.run(["cp", "-r", whole, out], check=True)
    damaged = latest_checkpoint(out)/name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint .*step-000012 is damaged .*remove that folder to start again"):
        next(train(TrainConfig(out=str(out), **SHORT)))


def test_other_settings_do_not_continue_a_run(whole):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="batch was 8 in the run at .*, got 16: choose another out"):
        next(train(TrainConfig(out=str(whole), **SHORT | {"batch": 16})))
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_training_learns():
    "Sixty steps on digits: the loss falls well below that of the zero velocity a fresh model predicts."
    import tempfile
    with tempfile.TemporaryDirectory() as out:
        losses = [s.loss.mean().item() for s in train(TrainConfig(out=out, steps=60, batch=32, lr=4e-3))]
    assert sum(losses[-10:]) < .75 * sum(losses[:10])


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), **SHORT)
    first = train(config)
    next(first)
    with pytest.raises(ValueError, match="another training is running in"): train(config)
    first.close()
    assert next(train(config)).step == 2


def test_a_diverged_run_says_so_and_keeps_the_checkpoint_before(tmp_path):
    "A weight becomes NaN after the checkpoint of step 5; the next checkpoint must not be written."
    out = tmp_path/"run"
    steps = train(TrainConfig(out=str(out), **SHORT))
    for step in steps:
        if step.step == 6: steps.gi_frame.f_locals["state"].raw.patch_embedding.bias.data[0] = torch.nan
        if step.step == 7: break
    with pytest.raises(ValueError, match="training diverged: the weights are not finite at step 7"): steps.close()
    assert step_of(out) == 5 and all(w.isfinite().all() for w in weights(out))


def test_a_model_folder_is_not_taken_for_a_run(tmp_path):
    folder = from_pretrained("digits").save_pretrained(tmp_path/"model")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="is not the configuration of a run"): train(TrainConfig(out=str(folder), **SHORT))
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("bad, message", [(dict(steps=2.5), "steps must be int, got 2.5"), (dict(decay="no"), "decay must be bool, got 'no'"), (dict(lr="1"), "lr must be float")])
def test_settings_of_the_wrong_kind(bad, message):
    with pytest.raises(ValueError, match=message): TrainConfig(**bad)


def test_a_log_that_was_cut_off_or_scribbled_on_does_not_stop_a_run(whole, tmp_path):
    out = tmp_path/"run"
    for step in train(TrainConfig(out=str(out), **SHORT)):
        if step.step == 6: break
    with (out/"log.jsonl").open("a") as log: log.write('[]\n{"step": "a"}\n{"step": 6, "lo')
    finish(out)
    assert same(whole, out) and [line["step"] for line in read_log(out)] == [3, 6, 9, 12]

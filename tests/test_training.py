"Training as a promise: the same seed gives the same weights, and nothing that kills a run costs more than the steps since its last checkpoint."

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import fresh
from pixnerd import from_pretrained, training
from pixnerd.data import load_data
from pixnerd.run_settings import TRAINING, TrainConfig, read_recipe
from pixnerd.run_folder import latest_checkpoint, read_log
from pixnerd.text_to_image import WordEncoder
from pixnerd.training import train

SHORT = dict(steps=12, batch=8, lr=1e-3, log_every=3, save_every=5, samples_every=12)
CLOCK = ("seconds", "images_per_second", "memory_gib") # what a log may differ in
ROOT = Path(__file__).resolve().parent.parent


TRAIN = "from pixnerd.cli import train_command; train_command()"


def options(out: Path, **settings) -> list[str]:
    "What the command of a short run is given."
    return [f"--out={out}", *(f"--{name.replace('_', '-')}={value}" for name, value in (SHORT | settings).items())]


def finish(out: Path, **settings) -> str:
    "Run the command to its end; return what it said."
    done = fresh.run(TRAIN, *options(out, **settings))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def weights(out: Path) -> list[torch.Tensor]: return list(from_pretrained(latest_checkpoint(out)).state_dict().values())


def same(a: Path, b: Path) -> bool: return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def timeless(out: Path) -> list[dict]: return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_log(out)]


def step_of(out: Path) -> int: return int(latest_checkpoint(out).name.removeprefix("step-"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "A short run that nothing interrupted."
    out = tmp_path_factory.mktemp("runs")/"whole"
    finish(out)
    return out


def test_two_processes_with_one_seed_agree_to_the_bit(whole, tmp_path):
    "One of them is started as a user does: with its own order of sets."
    done = subprocess.run([sys.executable, "-c", TRAIN, *options(tmp_path/"again")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(whole, tmp_path/"again")
    finish(tmp_path/"other", seed=1, samples_every=0)
    assert not same(whole, tmp_path/"other")


def test_a_run_leaves_what_it_promises(whole):
    assert sorted(p.name for p in whole.iterdir()) == [".lock", "checkpoints", "config.json", "data.json", "log.jsonl", "made_by.json", "samples"]
    assert [p.name for p in (whole/"checkpoints").iterdir()] == ["step-000012"]
    assert [line["step"] for line in read_log(whole)] == [3, 6, 9, 12]
    assert json.loads((whole/"config.json").read_text())["steps"] == 12
    (start,) = json.loads((whole/"made_by.json").read_text())
    assert {"pixnerd", "torch", "device", "cpu", "processes", "precision"} <= start.keys() and start["step"] == 0
    assert [p.name for p in (whole/"samples").iterdir()] == ["step-000012.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_stopped_and_run_again_equals_uninterrupted(whole, tmp_path, number):
    "The process is told to stop at step 6, after the checkpoint of step 5; what follows must not show it."
    out = tmp_path/"run"
    code = (f"import os; from pixnerd.run_settings import TrainConfig; import pixnerd.cli as cli; inner = cli.train\n"
            f"def train(*given):\n"
            f"    for step in inner(*given):\n"
            f"        if step.step == 6: os.kill(os.getpid(), {int(number)})\n"
            f"        yield step\n"
            f"cli.train = train; cli.train_command()")
    done = fresh.run(code, *options(out))
    assert done.returncode == 130, done.stderr
    assert 6 <= step_of(out) < 12
    assert f"from step {step_of(out)}" in finish(out)
    assert same(whole, out)
    assert timeless(out) == timeless(whole)


def test_a_full_disk_keeps_the_checkpoint_before(whole, tmp_path):
    "A file-size limit stands in for a full disk: writing the next checkpoint fails half-way."
    out = tmp_path/"run"
    finish(out, steps=5, samples_every=0)
    before = weights(out)
    config = json.loads((out/"config.json").read_text()) | {"steps": 12}
    (out/"config.json").write_text(json.dumps(config))
    done = fresh.run(TRAIN, *options(out, samples_every=0), largest_file=1_000_000)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "error: " in done.stderr
    assert step_of(out) == 5 and all(torch.equal(a, b) for a, b in zip(before, weights(out), strict=True))
    finish(out, samples_every=0)
    assert step_of(out) == 12 and [p.name for p in (out/"checkpoints").iterdir()] == ["step-000012"]


@pytest.mark.parametrize("name", ["training.pt", "model.safetensors", "config.json"])
def test_a_damaged_checkpoint_is_named(whole, tmp_path, name):
    out = tmp_path/"run"
    subprocess.run(["cp", "-r", whole, out], check=True)
    damaged = latest_checkpoint(out)/name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint .*step-000012 is damaged .*move that folder away to start from the one before"):
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


def test_a_checkpoint_of_the_version_before_continues_to_the_bit(whole, tmp_path):
    "Then, moments were stored by number and not by name, and what generates weights was called a writer."
    out = tmp_path/"run"
    for step in train(TrainConfig(out=str(out), **SHORT)):
        if step.step == 6: break
    path = latest_checkpoint(out)/"training.pt"
    saved = torch.load(path, weights_only=True)
    names = list(saved["optimiser"]["state"])
    state, groups = saved["optimiser"]["state"], saved["optimiser"]["param_groups"]
    saved["optimiser"] = {"state": {i: state[name] for i, name in enumerate(names)},
                          "param_groups": [group | {"params": [names.index(name) for name in group["params"]]} for group in groups]}
    saved["model"] = {name.replace(".weight_generator.", ".writer."): w for name, w in saved["model"].items()}
    assert any(".writer." in name for name in saved["model"])
    torch.save(saved, path)
    finish(out)
    assert same(whole, out) and timeless(whole) == timeless(out)


def test_a_checkpoint_kept_aside_disturbs_nobody(tmp_path):
    settings = SHORT | {"samples_every": 0}
    for step in train(TrainConfig(out=str(tmp_path/"run"), **settings)):
        if step.step == 6:
            kept = tmp_path/"run"/"checkpoints"/"step-000005-best"
            for copy in (kept, kept.with_name("step-000099")): shutil.copytree(kept.with_name("step-000005"), copy)
    assert sorted(p.name for p in kept.parent.iterdir()) == ["step-000005-best", "step-000012", "step-000099"]


def test_copies_and_links_among_the_checkpoints_are_left_alone(tmp_path):
    "A copy has a name of its own, or a number that it does not hold; a checkpoint was moved and a link left. Nothing is lost."
    config = replace(pictures(tmp_path/"data", *CATS), keep=1, save_every=1)
    start(config)
    folder = tmp_path/"run"/"checkpoints"
    sound, state = folder/"step-000002", (folder/"step-000002"/"training.pt").read_bytes()
    for name in ("step-2", "step-00002", "step-000009"): shutil.copytree(sound, folder/name)
    with pytest.raises(ValueError, match="/step-000009 holds step 2: move it out of checkpoints/$"): train(config)
    shutil.rmtree(folder/"step-000009")
    sound.rename(folder/"step-000001")
    with pytest.raises(ValueError, match="/step-000001 holds step 2: rename it to step-000002, or move it out"): train(config)
    (folder/"step-000001").rename(sound)
    (sound/"training.pt").unlink()
    with pytest.raises(ValueError, match="has weights but no training state: move it out of checkpoints/, or start anew"): train(config)
    (sound/"training.pt").write_bytes(state)
    sound.rename(tmp_path/"scratch")
    sound.symlink_to(tmp_path/"scratch")
    assert [step.step for step in train(config)] == [3, 4]
    assert sorted(p.name for p in folder.iterdir()) == ["step-000004", "step-00002", "step-2"]
    assert (tmp_path/"scratch"/"training.pt").read_bytes() == state


def pictures(folder: Path, *names: str, captions: bool = False) -> TrainConfig:
    "Small pictures in a folder, and a run of four steps on that folder."
    for i, name in enumerate(names):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * i, 90, 200)).save(folder/name)
    about = dict(preset="scenes", cond="text", model="width=32 heads=2 depth=1 text_depth=1") if captions else dict(preset="digits", model="width=32 depth=1")
    return TrainConfig(out=str(folder.parent/"run"), data=str(folder), steps=4, batch=2, size=32, **about)


def start(config: TrainConfig, *encode, steps: int = 2):
    "Some steps, and an interruption."
    for step in train(config, *encode):
        if step.step == steps: break


CATS = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


def test_data_that_changed_do_not_continue_a_run(tmp_path, caplog):
    "One class folder is replaced by another, as many classes and other ids; a folder grows. Nothing is called damaged."
    config = pictures(tmp_path/"data", *CATS)
    start(config)
    assert from_pretrained(latest_checkpoint(config.out)).config.class_names == ("cat", "dog")
    (tmp_path/"data"/"dog").rename(tmp_path/"data"/"ant")
    with pytest.raises(ValueError, match=r"dog is gone .* ant is new .*: choose another out, or say resume_changed"): train(config)
    (tmp_path/"run"/"data.json").rename(tmp_path/"aside")    # as a run of the version before
    with pytest.raises(ValueError, match=r"class_names was \('cat', 'dog'\) in .*, and is \('ant', 'cat'\)"): train(config)
    (tmp_path/"aside").rename(tmp_path/"run"/"data.json")
    with pytest.raises(ValueError, match="dog is gone"): train(config)
    assert next(train(replace(config, resume_changed=True))).step == 3
    assert "continued although folder dog is gone (3 pictures); folder ant is new (3 pictures)" in caplog.text
    assert "class ids that mean other classes now: 0 was cat and is ant; 1 was dog and is cat" in caplog.text
    assert json.loads((tmp_path/"run"/"made_by.json").read_text())[-1]["data_before"]["classes"] == ["cat", "dog"]
    (tmp_path/"data"/"ant").rename(tmp_path/"data"/"dog")
    pictures(tmp_path/"data", "dog/3.png")
    with pytest.raises(ValueError, match="dog") as told: train(config)
    assert "damaged" not in str(told.value)


def test_a_records_damage_names_what_to_do(tmp_path, caplog):
    config = pictures(tmp_path/"data", *CATS)
    start(config)
    for name, remedy in [("config.json", "choose another out, or put the run's config.json back"), ("data.json", "move it away to go on without comparing")]:
        sound = (tmp_path/"run"/name).read_text()
        (tmp_path/"run"/name).write_text("{")
        with pytest.raises(ValueError, match=f"{name} is damaged, .*: {remedy}"): train(config)
        (tmp_path/"run"/name).write_text(sound)
    (tmp_path/"run"/"data.json").unlink()
    assert next(train(config)).step == 3
    assert "whether the data are those of the steps before cannot be told" in caplog.text


def test_a_class_more_is_not_called_damage(tmp_path):
    "Told to go on all the same, there is nothing to go on with: the weights have another shape; and the folder is sound."
    config = pictures(tmp_path/"data", *CATS)
    start(config)
    pictures(tmp_path/"data", "eel/0.png", "eel/1.png")
    with pytest.raises(ValueError, match="folder eel is new"): train(config)
    with pytest.raises(ValueError, match="num_classes was 2 in .*, and is 3 now.* another shape") as told: train(replace(config, resume_changed=True))
    assert "damaged" not in str(told.value) and "remove" not in str(told.value)


def test_whoever_names_a_text_encoder_wants_captions(tmp_path):
    "Nobody gets a model of classes instead, and a folder is the same however its path is written."
    config = pictures(tmp_path/"data", *CATS)
    with pytest.raises(ValueError, match="cond text cannot be had: .* has no captions"): train(replace(config, text="words"), WordEncoder())
    start(config)
    assert next(train(replace(config, data=f"{config.data}/"))).step == 3


def test_a_run_inside_its_data_goes_on(tmp_path):
    "Its own sheets of samples are no pictures to learn from."
    config = replace(pictures(tmp_path/"data", *CATS), out=str(tmp_path/"data"/"run"), samples_every=1)
    start(config)
    assert list((tmp_path/"data"/"run"/"samples").iterdir())
    assert [step.step for step in train(config)] == [3, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_with_a_name_that_is_not_utf8_stops_nothing(tmp_path, workers):
    config = replace(pictures(tmp_path/"data", *CATS), workers=workers, save_every=2)
    with open(os.fsencode(tmp_path/"data"/"cat") + b"/b\xff\xfed.png", "wb") as file: file.write(b"nothing")
    start(config, steps=3)
    assert step_of(tmp_path/"run") == 3 and list(json.loads((tmp_path/"run"/"unreadable.json").read_text())) == ["cat/b\udcff\udcfed.png"]
    assert [step.step for step in train(config)] == [4]


def test_captions_are_checked_before_the_first_step(tmp_path, caplog):
    "One strange caption: said at once, its picture passed over and listed. All of them strange: refused."
    config = pictures(tmp_path/"data", *(f"{i}.png" for i in range(5)), captions=True)
    for i in range(5): (tmp_path/"data"/f"{i}.txt").write_text("a crimson circle" if i == 3 else "a red circle")
    steps = train(config, WordEncoder())
    assert "3.png: 'a crimson circle' cannot be encoded" in caplog.text and latest_checkpoint(config.out) is None
    assert len(list(steps)) == 4
    assert list(json.loads((tmp_path/"run"/"unreadable.json").read_text())) == ["3.png"]
    for i in range(5): (tmp_path/"data"/f"{i}.txt").write_text("a crimson circle")
    with pytest.raises(ValueError, match="0.png: 'a crimson circle' cannot be encoded"): train(replace(config, out=str(tmp_path/"other")), WordEncoder())


def test_what_is_learned_from_and_for_how_long_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "pixnerd")
    config = replace(pictures(tmp_path/"data", *CATS), steps=100_000)
    start(config, steps=22)
    assert "6 pictures, 2 classes: " in caplog.text and "cat (3), 1" in caplog.text
    (line,) = (text for text in caplog.messages if text.startswith("about "))
    assert "steps that are left" in line and "s each on this cpu, " in line
    assert json.loads((tmp_path/"run"/"data.json").read_text())["classes"] == ["cat", "dog"]
    caplog.clear()
    list(train(replace(config, steps=26, resume_changed=True)))
    assert not [text for text in caplog.messages if text.startswith("about ")]           # a moment needs no forecast


def test_without_dropped_labels_there_is_no_null_class(tmp_path):
    "Runs of the version before, which did not say so, go on."
    config = replace(pictures(tmp_path/"data", *CATS), label_drop=0.)
    start(config)
    path = latest_checkpoint(config.out)/"config.json"
    assert json.loads(path.read_text())["null_class"] is False
    path.write_text(path.read_text().replace('"null_class": false', '"null_class": true'))
    assert next(train(config)).step == 3


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), **SHORT)
    first = train(config)
    next(first)
    with pytest.raises(ValueError, match="another training is running in"): train(config)
    first.close()
    assert next(train(config)).step == 2


class Poisoned(Dataset):
    "The digits, with images that are not numbers from the fifth batch of eight on, for as many batches as asked."
    def __init__(self, batches: int):
        self.inner, self.batches, self.asked = load_data("digits"), batches, 0
        self.names, self.channels, self.size, self.understood = self.inner.names, 1, 32, self.inner.understood

    def __len__(self): return len(self.inner)

    def __getitem__(self, i):
        self.asked += 1
        example = self.inner[i]
        bad = 4 * 8 < self.asked <= (4 + self.batches) * 8
        return example._replace(image=torch.full_like(example.image, torch.nan)) if bad else example


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_data", lambda *_: Poisoned(2))
    steps = list(train(TrainConfig(out=str(tmp_path/"run"), **SHORT)))
    assert [s.step for s in steps if not s.taken] == [5, 6]
    assert read_log(tmp_path/"run")[-1]["skipped"] == 2 and all(w.isfinite().all() for w in weights(tmp_path/"run"))


def test_skipping_for_too_long_stops_the_run_with_its_weights_intact(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_data", lambda *_: Poisoned(100))
    out, settings = tmp_path/"run", SHORT | {"patience": 3, "save_every": 4}
    with pytest.raises(ValueError, match="training stopped at step 7: 3 steps in a row were skipped"):
        for step in train(TrainConfig(out=str(out), **settings)):
            if step.step == 4: before = torch.load(latest_checkpoint(out)/"training.pt", weights_only=True)["model"]
    after = torch.load(latest_checkpoint(out)/"training.pt", weights_only=True)["model"]
    assert step_of(out) == 7 and all(torch.equal(before[name], after[name]) for name in before)


def test_a_spike_is_skipped_once_the_usual_norm_is_known(tmp_path):
    steps = train(TrainConfig(out=str(tmp_path/"run"), **SHORT | {"steps": 120, "save_every": 1000, "samples_every": 0}))
    for step in steps:
        state = steps.gi_frame.f_locals["state"]
        if step.step == 110: state.trainee.patch_embedding.weight.register_hook(lambda g: g * 1e4 if state.step == 111 else g)
        assert step.taken or step.step == 112
    assert not step.skipped and int(state.guard.skipped) == 1


def test_a_model_folder_is_not_taken_for_a_run(tmp_path):
    folder = from_pretrained("digits").save_pretrained(tmp_path/"model")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="is not the configuration of a run"): train(TrainConfig(out=str(folder), **SHORT))
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("bad, message", [(dict(steps=2.5), "steps must be int, got 2.5"), (dict(decay="no"), "decay must be bool, got 'no'"), (dict(lr="1"), "lr must be float"),
                                          (dict(precision="fp16", device="cpu"), "precision fp16 needs a GPU"), (dict(lr=float("nan")), "lr must be at least")])
def test_settings_of_the_wrong_kind(bad, message):
    with pytest.raises(ValueError, match=message): TrainConfig(**bad)


def test_a_log_that_was_cut_off_or_scribbled_on_does_not_stop_a_run(whole, tmp_path):
    out = tmp_path/"run"
    for step in train(TrainConfig(out=str(out), **SHORT | {"samples_every": 0})):
        if step.step == 6: break
    with (out/"log.jsonl").open("a") as log: log.write('[]\n{"step": "a"}\n{"step": 6, "lo')
    finish(out, samples_every=0)
    assert same(whole, out) and [line["step"] for line in read_log(out)] == [3, 6, 9, 12]


KILLED = """
import os, signal, sys, time, random
import torch
torch.set_num_threads(1)
import accelerate, sklearn.datasets, torch._dynamo, pixnerd.alignment, pixnerd.samplers   # once, so that the kills meet the training
from pathlib import Path
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint
from pixnerd.training import train
out, random = Path(sys.argv[1]), random.Random(0)
config = TrainConfig(out=str(out), steps=60, batch=4, log_every=4, save_every=3, keep=2, samples_every=25)
writing = 0
for kill in range(10):
    child = os.fork()
    if not child:
        for step in train(config): pass
        os._exit(0)
    start, wait = time.time(), random.uniform(.1, 1)
    def due(): return time.time() - start > wait or (last := latest_checkpoint(out)) and int(last.name[5:]) >= 5 * (kill + 1)
    def saving():
        try: return any(p.stat().st_ctime > start for p in (out/"checkpoints").glob(".step-*.tmp"))     # by this one: what a kill left stays until the next is saved
        except FileNotFoundError: return False
    while not (due() and (saving() or not kill % 2)) and time.time() - start < wait + 20:
        if os.waitpid(child, os.WNOHANG)[0]: sys.exit("the run ended before it was killed ten times")
        time.sleep(.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    writing += saving()
    print(kill, latest_checkpoint(out) and latest_checkpoint(out).name, flush=True)
print("writing", writing)
for step in train(config): pass
"""


def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    "kill -9 ten times, every second time while a checkpoint is being written; each continues from the last whole one."
    script = tmp_path/"killed.py"
    script.write_text(KILLED)
    done = subprocess.run([sys.executable, script, tmp_path/"killed"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout.split()[-1]) >= 2, f"kills met a checkpoint being written less than twice: {done.stdout}"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                # sums of several threads round differently
    try: list(train(TrainConfig(out=str(tmp_path/"whole"), steps=60, batch=4, log_every=4, save_every=3, keep=2, samples_every=25)))
    finally: torch.set_num_threads(threads)
    assert same(tmp_path/"killed", tmp_path/"whole") and timeless(tmp_path/"killed") == timeless(tmp_path/"whole")
    assert [p.name for p in sorted((tmp_path/"killed"/"checkpoints").iterdir())] == ["step-000057", "step-000060"]


def test_other_settings_continue_a_run_when_told_so(whole, tmp_path):
    out = tmp_path/"run"
    subprocess.run(["cp", "-r", whole, out], check=True)
    more = SHORT | {"steps": 14, "lr": 1e-4}
    with pytest.raises(ValueError, match="steps was 12 in the run at .*, got 14; lr was 0.001 in the run at .*, got 0.0001: choose another out, or say resume_changed"):
        train(TrainConfig(out=str(out), **more))
    assert [s.step for s in train(TrainConfig(out=str(out), resume_changed=True, **more))] == [13, 14]
    assert json.loads((out/"made_by.json").read_text())[-1]["changed"] == {"steps": [12, 14], "lr": [.001, .0001]}


@pytest.mark.parametrize("recipe", sorted((ROOT/"recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_runs(recipe):
    "Every setting is known and in range, and what the recipe builds on a GPU would fit its data."
    settings = read_recipe(recipe)
    config = TrainConfig(**settings | {"track": ""})
    plain = TrainConfig(preset=config.preset)
    assert config.start_from or all(getattr(config, name) == getattr(plain, name) for name in TRAINING), "--preset trains otherwise"
    assert config.out == "runs/train" and not Path(config.data).is_absolute() and (recipe.read_text().startswith("# "))


def test_a_recipe_decides_and_the_command_line_changes_it(tmp_path):
    recipe = tmp_path/"short.yaml"
    recipe.write_text("steps: 3\nbatch: 4\nlr: 1e-3\n")
    finish(tmp_path/"run", recipe=recipe, steps=2, samples_every=0)
    config = json.loads((tmp_path/"run"/"config.json").read_text())
    assert (config["steps"], config["batch"], config["lr"]) == (2, 8, 1e-3)     # 2 and 8 were given as options
    recipe.write_text("learning_rate: 1\n")
    done = fresh.run(TRAIN, *options(tmp_path/"other", recipe=recipe))
    assert done.returncode == 2 and "unknown setting 'learning_rate'" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("text, message", [("steps: [1, 2]", "steps must be one plain value, got a list"), ("model: {depth: {a: 1}}", "model must be one plain value, got a dict"),
                                           ("lr: " + "[" * 400, "nested too deeply")])
def test_a_recipe_holds_plain_values(tmp_path, text, message):
    (tmp_path/"odd.yaml").write_text(text)
    with pytest.raises(ValueError, match=message): read_recipe(tmp_path/"odd.yaml")


def test_fine_tuning_starts_from_the_model_it_names(tmp_path):
    "At another size too; a data set with other classes is refused."
    config = TrainConfig(out=str(tmp_path/"run"), start_from="digits", size=64, steps=1, batch=4, lr=1e-9, warmup=0)
    list(train(config))
    tuned, shipped = from_pretrained(latest_checkpoint(tmp_path/"run")), from_pretrained("digits")
    assert tuned.config.image_size == 64
    for a, b in zip(tuned.state_dict().values(), shipped.state_dict().values(), strict=True): torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    classes = load_data("digits")
    with pytest.raises(ValueError, match="start_from digits has num_classes 10, data digits has 4"):
        training.make_model(config, shipped, classes.channels, "abcd")


@pytest.mark.parametrize("settings", [dict(align="digits", align_block=2), dict(precision="bf16"), dict(recompute=True, accumulate=2, flip=True), dict(times="uniform", workers=2)], ids=str)
def test_every_option_resumes_to_the_bit(tmp_path, settings):
    settings = SHORT | settings | {"steps": 6, "samples_every": 0}
    list(train(TrainConfig(out=str(tmp_path/"whole"), **settings)))
    for step in train(TrainConfig(out=str(tmp_path/"run"), **settings)):
        if step.step == 4: break
    list(train(TrainConfig(out=str(tmp_path/"run"), **settings)))
    assert same(tmp_path/"whole", tmp_path/"run") and timeless(tmp_path/"whole") == timeless(tmp_path/"run")
    assert not any("projector" in name for name in from_pretrained(latest_checkpoint(tmp_path/"run")).state_dict())


def test_a_tracker_gets_each_line_once(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    settings = SHORT | {"track": "tensorboard", "samples_every": 0}
    for step in train(TrainConfig(out=str(tmp_path/"run"), **settings)):
        if step.step == 8: break
    list(train(TrainConfig(out=str(tmp_path/"run"), **settings)))
    (events,) = {p.parent for p in (tmp_path/"run").rglob("events.*") if p.parent.name == "tensorboard"}
    seen = EventAccumulator(str(events)).Reload()
    assert [e.step for e in seen.Scalars("loss")] == [3, 6, 9, 12]


def test_a_text_model_learns_from_captions(tmp_path, monkeypatch):
    "On the drawn world, with a frozen table of words for an encoder; resumed to the bit, with a sheet of the captions' images."
    from pixnerd.scenes import VOCABULARY
    from pixnerd.model import PRESETS, PixNerdConfig, Preset
    tiny = PixNerdConfig(width=32, heads=2, depth=2, patch=4, image_size=16, num_classes=0, text_width=8, text_tokens=24, text_depth=1, field_width=16, field_depth=1)
    monkeypatch.setitem(PRESETS, "tiny-text", Preset(tiny))
    table = torch.randn(len(VOCABULARY) + 1, 8, generator=torch.Generator().manual_seed(0))
    def encode(captions): return torch.stack([torch.stack([table[list(VOCABULARY).index(w) + 1] for w in c.split()] + [table[0]] * (24 - len(c.split()))) for c in captions])
    settings = dict(preset="tiny-text", data="scenes", size=16, steps=4, batch=4, log_every=2, save_every=2, samples_every=4)
    with pytest.raises(ValueError, match="a text model needs an encoder"): train(TrainConfig(out=str(tmp_path/"run"), **settings))
    with pytest.raises(ValueError, match="preset digits is a class model, and data scenes has captions"): train(TrainConfig(out=str(tmp_path/"run"), **settings | {"preset": "digits"}))
    list(train(TrainConfig(out=str(tmp_path/"whole"), **settings), encode))
    for step in train(TrainConfig(out=str(tmp_path/"run"), **settings), encode):
        if step.step == 3: break
    list(train(TrainConfig(out=str(tmp_path/"run"), **settings), encode))
    assert same(tmp_path/"whole", tmp_path/"run")
    assert (tmp_path/"run"/"samples"/"step-000004.png").read_bytes() == (tmp_path/"whole"/"samples"/"step-000004.png").read_bytes()

"The training monitor and the dashboard, without a browser: runs that are missing, begin, go on, or are damaged."

import json
import re
import time
from dataclasses import replace

import pytest
from PIL import Image
from tiny import make_tiny

pytest.importorskip("ipywidgets", reason="the widgets are not installed (pip install -e '.[dev]')")
pytest.importorskip("anywidget", reason="the widgets are not installed (pip install -e '.[dev]')")
from pixnerd.monitor import Dashboard, MonitorView, TrainingMonitor
from pixnerd.probes import inspect_model
from pixnerd.run_folder import latest_checkpoint
from pixnerd.run_settings import TrainConfig
from pixnerd.training import train

TINY = make_tiny()


def test_the_monitor_reads_a_run_and_says_what_is_missing(tmp_path):
    view = MonitorView(TrainingMonitor(tmp_path/"none"))
    view.worker.wait()
    assert "no run in" in view.line.value and "role='alert'" in view.line.value
    run = tmp_path/"run"
    for _ in train(TrainConfig(out=str(run), steps=6, batch=4, log_every=2)): pass
    log, text = run/"log.jsonl", (run/"log.jsonl").read_text()
    log.unlink()
    view.set(folder=str(run))
    view.worker.wait()
    assert "holds no steps: the run has not logged yet" in view.line.value
    first, *rest = text.splitlines()
    lines = [json.dumps(json.loads(first) | {"gradient_noise": 1., "loss_by_time": None}), *rest]
    log.write_text("\n".join(lines) + '\n{"step": 8, "lo')           # new keys, a missing one, a line cut off
    view.refresh()
    view.worker.wait()
    assert "role='alert'" not in view.line.value, view.line.value
    assert len(view.board.table["step"]) == 3
    sampled = view.canvas.png
    (run/"samples").mkdir(exist_ok=True)
    Image.new("RGB", (64, 32), "red").save(run/"samples/step-000006.png")
    view.refresh()
    view.worker.wait()
    assert view.canvas.png != sampled                                        # what the run itself drew goes first
    (run/"config.json").write_text("{")
    view.refresh()
    view.worker.wait()
    assert "config.json is damaged" in view.line.value


def test_a_missing_run_is_displayed_as_a_line(tmp_path):
    bundle = TrainingMonitor(tmp_path/"none")._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(bundle)
    monitor = TrainingMonitor(config=TrainConfig(out=str(tmp_path/"run")))
    assert "image/png" in monitor._repr_mimebundle_()
    view = monitor.view()
    view.worker.wait()
    assert "role='alert'" not in view.line.value and view.canvas.png         # nothing is wrong yet


def test_the_monitor_starts_and_stops_a_run(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), steps=1000, batch=4, log_every=1)
    view = MonitorView(TrainingMonitor(config=config), start=False)
    start, stop = view.box.children[0].children[1:]
    start.click()
    trainer = view.explorer.trainer
    while trainer.done < 3 and trainer.running: pass
    stop.click()
    view.worker.wait()
    assert not trainer.error and 3 <= trainer.done < 1000
    assert latest_checkpoint(tmp_path/"run").name == f"step-{trainer.done:06d}"
    assert f"stopped at step {trainer.done}" in view.line.value and len(view.board.table["step"]) == trainer.done
    assert str(tmp_path/"run") in view.boxes["folder"].options               # offered from now on
    view.set(folder=str(tmp_path/"elsewhere"))
    start.click()
    assert view.settings.folder == config.out                                # what it trains is what it shows
    stop.click()
    view.worker.wait()
    view.follow_button.value = False
    (tmp_path/"other").mkdir()
    (tmp_path/"other/file").touch()
    broken = TrainingMonitor(config=replace(config, out=str(tmp_path/"other"))).trainer
    broken.start()
    broken.thread.join()
    assert "holds files but no config.json of a run" in broken.error


def test_a_training_says_its_step_before_anything_is_logged(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), steps=100_000, batch=4, log_every=50_000)
    view = MonitorView(TrainingMonitor(config=config))
    view.seconds = .05
    view.start()
    def step(): return int((re.search(r"training, step (\d+) of 100000", view.line.value) or [0, 0])[1])
    first, end = step(), time.monotonic() + 60
    while step() <= first + 1 and time.monotonic() < end: time.sleep(.05)
    seen = step()
    with pytest.raises(FileNotFoundError, match="this run has no checkpoint yet"): inspect_model(tmp_path/"run")
    view.stop()
    view.worker.wait()
    view.follow_button.value = False
    assert seen > first + 1 and inspect_model(tmp_path/"run")


def test_a_run_stopped_before_its_first_log_is_no_error(tmp_path):
    view = MonitorView(TrainingMonitor(config=TrainConfig(out=str(tmp_path/"run"), steps=1000, batch=4, log_every=500)))
    trainer = view.explorer.trainer
    view.start()
    while trainer.done < 2 and trainer.running: pass
    view.stop()
    view.worker.wait()
    assert "role='alert'" not in view.line.value and "stopped at step" in view.line.value
    view.follow_button.value = False


def test_a_checkpoint_draws_once(tmp_path, monkeypatch):
    "However often the log grows: drawing takes time from the training beside it."
    run, drawn = tmp_path/"run", []
    for _ in train(TrainConfig(out=str(run), steps=4, batch=4, log_every=2)): pass
    monkeypatch.setattr("pixnerd.monitor.inspect_model", lambda checkpoint: drawn.append(checkpoint) or inspect_model(checkpoint))
    monitor = TrainingMonitor(run)
    for step in (6, 8):
        monitor.compute()
        with (run/"log.jsonl").open("a") as log: log.write(json.dumps({"step": step, "loss": 1.}) + "\n")
    state = monitor.compute()
    assert len(state.log) == 4 and state.samples is not None and drawn == [latest_checkpoint(run)]
    monitor.compute(seed=1)
    assert len(drawn) == 2


def test_the_dashboard_goes_on_with_the_run_in_its_folder(tmp_path):
    for _ in train(TrainConfig(out=str(tmp_path/"run"), steps=6, batch=4, lr=1e-3, log_every=2)): break
    monitor = Dashboard(TINY, runs=str(tmp_path/"run")).explorer("Training")
    assert (monitor.trainer.config.batch, monitor.trainer.config.lr) == (4, 1e-3)
    monitor.trainer.start()
    monitor.trainer.thread.join()
    assert not monitor.trainer.error and latest_checkpoint(tmp_path/"run").name == "step-000006"
    (tmp_path/"run/config.json").write_text("{")
    assert Dashboard(TINY, runs=str(tmp_path/"run")).explorer("Training").trainer is None


def test_a_run_is_overlaid_on_another(tmp_path):
    for seed in (0, 1):
        for _ in train(TrainConfig(out=str(tmp_path/f"runs/{seed}"), steps=4, batch=4, log_every=1, seed=seed)): pass
    view = MonitorView(TrainingMonitor(tmp_path/"runs/0"))
    view.pin()
    view.set(folder=str(tmp_path/"runs/1"))
    view.worker.wait()
    assert "role='alert'" not in view.line.value
    assert [len(x) for x, _ in view.board.charts[-1].curves.values()] == [4, 4]
    assert view.board.titles[0] == f"pinned: folder {tmp_path/'runs/0'}"
    assert view.explorer.newest(view.settings) == view.explorer.stamps[view.settings.folder]   # nothing is read again


def test_the_dashboard_loads_another_model_or_says_why_not(tmp_path):
    dashboard = Dashboard(TINY, runs=str(tmp_path/"runs/train"))
    box = dashboard.widget()
    assert list(dashboard.views) == ["Denoise"]                              # the others wait until they are looked at
    dashboard.source.value = str(tmp_path/"nothing")
    assert "no model" in dashboard.line.value and "role='alert'" in dashboard.line.value
    assert list(dashboard.views) == ["Denoise"]
    TINY.save_pretrained(tmp_path/"tiny")
    dashboard.tabs.selected_index = 2
    dashboard.source.value = f" {tmp_path/'tiny'} "
    assert not dashboard.line.value and list(dashboard.views) == ["Field"]
    assert dashboard.subject.source == repr(str(tmp_path/"tiny"))
    assert str(tmp_path/"runs/new") not in dashboard.source.options
    for _ in train(TrainConfig(out=str(tmp_path/"runs/new"), steps=1, batch=4)): pass
    for i in (0, 3, 4, 5, 6): dashboard.tabs.selected_index = i               # not the samplers, which take long
    assert str(tmp_path/"runs/new") in dashboard.source.options              # a run that has begun meanwhile
    training = dashboard.views["Training"]
    dashboard.source.value = "digits"
    assert not dashboard.line.value and dashboard.views == {"Training": training}              # it goes on
    assert dashboard.tabs.children[6].children == (training.box,) and not dashboard.tabs.children[0].children
    for i in (0, 2, 3, 4, 5): dashboard.tabs.selected_index = i
    assert len(dashboard.views) == 6 and box.children[1] is dashboard.tabs
    for view in dashboard.views.values():
        view.worker.wait()
        assert "role='alert'" not in view.line.value


def test_the_dashboard_offers_and_opens_runs(tmp_path):
    for _ in train(TrainConfig(out=str(tmp_path/"runs/mine"), steps=2, batch=4)): pass
    dashboard = Dashboard(TINY, runs=str(tmp_path/"runs/train"))
    dashboard.widget()
    assert str(tmp_path/"runs/mine") in dashboard.source.options
    dashboard.source.value = str(tmp_path/"runs/mine")
    assert not dashboard.line.value and "step-000002" in dashboard.subject.source


def test_prompts_at_the_dashboard():
    "Typed over the digits, the shipped text model opens with its own encoder, asks for prompts, and draws each."
    from pixnerd.text_to_image import encoder_of
    dashboard = Dashboard("digits", encoder_of=encoder_of)
    dashboard.widget()
    dashboard.source.value = "scenes"
    view = dashboard.views["Denoise"]
    view.worker.wait()
    assert not dashboard.line.value and "role='alert'" not in view.line.value
    assert view.boxes["classes"].description == "prompts"
    three = dict(classes="a red circle; a blue square at the top; four green stars", steps=2)
    view.set(**three)
    view.worker.wait()
    assert "role='alert'" not in view.line.value and len(view.explorer.compute(**three)[0].x) == 3
    assert "encode = load_text_encoder('words')" in view.explorer.code()
    view.set(classes="a purple circle")
    view.worker.wait()
    assert "unknown words: 'purple'" in view.line.value

"The explorers without a browser: random controls, the last wish, two at once, clicks, exports, copied code, and bad input."

import csv
import io
import json
import random
import subprocess
import sys
import threading
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

pytest.importorskip("ipywidgets", reason="the widgets are not installed (pip install -e '.[dev]')")
pytest.importorskip("anywidget", reason="the widgets are not installed (pip install -e '.[dev]')")
from pixnerd import PixNerd, explore, show
from pixnerd.monitor import Dashboard, TrainingMonitor, follow_run
from pixnerd.explorers import DenoisingExplorer, ResolutionLab, SamplerLab
from pixnerd.lenses import EncodingLab, FieldLens, TokenLens
from pixnerd.explorer import LatestOnlyWorker, View, answer, stack_boards
from pixnerd.probes import listening, open_subject
from pixnerd.samplers import METHODS
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint
from pixnerd.training import train

torch.manual_seed(0)


def make_tiny(**changes) -> PixNerd:
    "A model small enough for hundreds of runs, whose last layer is not zero, as it is in a fresh one."
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = PixNerd.from_preset("digits", **(dict(width=16, heads=2, depth=2, field_width=8) | changes))
        if not changes.get("head"): torch.nn.init.normal_(model.decoder.out.linear.weight, std=.3)
    return model.eval()


TINY = make_tiny()


@pytest.fixture
def coarse(monkeypatch):
    "Boards at a quarter of their pixels: what is tested is not their beauty."
    monkeypatch.setattr(show, "SCALE", 1)
    show.lettering.cache_clear()
    yield
    show.lettering.cache_clear()


# What decides a computation takes few values here, so that most states are in the cache; what is free takes all.
RUN = dict(classes=["3", "0-3"], seed=[0, 7], steps=[1, 3], guidance=[1., 8.])
CASES = {
    DenoisingExplorer: RUN | dict(method=list(METHODS), order=[1, 4], interval=[(0., 1.), (.3, .3)], time_shift=[.5, 6.]),
    SamplerLab: dict(classes=["3"], seed=[0], guidance=[2.], interval=[(0., 1.)], time_shift=[1.], most=[8], view=["solvers", "guidance"]),
    FieldLens: RUN, TokenLens: RUN,
    EncodingLab: dict(steps=[10], seed=[0], side=[8, 16], width=[8], frequencies=[2], target=["rings", "stroke"], encoding=["dct"], against=["sincos", "dct"], normalise=["none", "W1 and W2"]),
    ResolutionLab: dict(classes=["3", "0-3"], seed=[0], steps=[1], guidance=[2.], zoom=[1, 2], height=[16, 32, 48], width=[16, 64]),
}


@st.composite
def states(draw, explorer, few):
    "A random state of an explorer's controls, within their ends."
    values = {}
    for name, c in explorer.controls(explorer.settings).items():
        if name in few: values[name] = draw(st.sampled_from(few[name]))
        elif isinstance(c, show.Slider): values[name] = draw((st.integers if isinstance(c.low, int) else st.floats)(c.low, c.high))
        else: values[name] = draw(st.sampled_from(list(c.values)))
    return values


@pytest.mark.parametrize("kind", CASES, ids=lambda k: k.__name__)
def test_200_random_states_raise_nothing(kind, coarse):
    explorer = kind(TINY)
    view = View(explorer, start=False)
    views = tuple(explore.FIELD_VIEWS)

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def one(data):
        view.set(**data.draw(states(explorer, CASES[kind])))
        if data.draw(st.booleans()): answer(view, data.draw(st.fixed_dictionaries({"x": st.floats(0, .999), "y": st.floats(0, .999)})))
        if data.draw(st.booleans()): answer(view, {"key": data.draw(st.sampled_from(["Left", "Right", "Up", "Down"]))})
        view.latest.wait()
        assert "role='alert'" not in view.line.value, (view.settings, view.line.value)
        assert view.shown == view.settings
        with Image.open(io.BytesIO(view.canvas.png)) as picture: assert min(picture.size) > 100
        assert next(csv.reader(io.StringIO(view.board.csv())))
    assert len(views) == 5
    one()


def test_rapid_dragging_leaves_the_last_state_shown():
    view = View(DenoisingExplorer(TINY, steps=6))
    wishes = random.Random(0)
    for _ in range(60): view.set(seed=wishes.randrange(1000), moment=wishes.randrange(7))
    view.set(seed=5, moment=4), view.latest.wait()
    assert view.shown == view.settings and (view.settings.seed, view.settings.moment) == (5, 4)
    assert view.canvas.png == view.explorer.picture(seed=5, moment=4).png()
    assert len(view.explorer.cache) < 60                                     # most of them were dropped on the way


def test_a_newer_wish_abandons_long_work():
    lab = SamplerLab(TINY, most=8)
    view, begun, told = View(lab, start=False), threading.Event(), []
    say = view.say
    view.say = lambda text, wrong=False: (told.append(text), begun.set(), say(text, wrong))
    view.set(seed=1)
    assert begun.wait(60)
    view.set(seed=2), view.latest.wait()
    assert view.shown.seed == 2 and [s.seed for s in lab.cache] == [2]       # the first was dropped in the middle, and left nothing behind
    assert told[0].startswith("reference: step")


def test_latest_survives_an_error():
    done = []

    def work(request, stale):
        if request == 1: raise RuntimeError("broken")
        done.append(request)
    latest, hook = LatestOnlyWorker(work), threading.excepthook
    threading.excepthook = lambda _: None
    try: latest.ask(1), latest.wait()
    finally: threading.excepthook = hook
    latest.ask(2), latest.wait()
    assert done == [2]


def test_explorers_of_one_model_do_not_disturb_one_another():
    kinds = [(DenoisingExplorer, "moment"), (FieldLens, "moment"), (TokenLens, "token"), (DenoisingExplorer, "moment")]
    views = [View(kind(TINY, seed=i, steps=6)) for i, (kind, _) in enumerate(kinds)]
    alone = [kind(TINY, seed=i, steps=6) for i, (kind, _) in enumerate(kinds)]
    drags = [threading.Thread(target=lambda v=v, n=n: [v.set(seed=s % 4, **{n: s % 5}) for s in range(12)]) for v, (_, n) in zip(views, kinds)]
    for d in drags: d.start()
    for d in drags: d.join()
    for v in views: v.latest.wait()
    for v, a in zip(views, alone): assert v.canvas.png == a.picture(**asdict(v.settings)).png() and v.shown == v.settings
    assert not any(m._forward_pre_hooks for m in TINY.modules())


def test_subject_shares_memory_and_keeps_modules_apart():
    subject = open_subject(TINY)
    for (name, ours), theirs in zip(subject.model.named_parameters(), TINY.parameters()): assert ours.data_ptr() == theirs.data_ptr(), name
    with pytest.raises(RuntimeError, match="stop"), listening(subject.model): raise RuntimeError("stop")
    assert not any(m._forward_pre_hooks for m in subject.model.modules()), "hooks are removed whatever happens"
    assert all(p.requires_grad for p in TINY.parameters())


@pytest.mark.parametrize("kind, moves", [(DenoisingExplorer, [dict(moment=m) for m in range(5)]),
                                         (FieldLens, [dict(moment=m, patch=m, view=v) for m, v in enumerate(explore.FIELD_VIEWS) if m < 4]),
                                         (TokenLens, [dict(moment=m, token=m, block=m % 2) for m in range(4)])])
def test_cached_moves_ask_the_model_nothing(kind, moves):
    explorer, asked = kind(TINY, steps=4), []
    explorer.compute()
    explorer.subject.model.register_forward_hook(lambda *_: asked.append(1))
    pictures = {explorer.picture(**move).png() for move in moves}
    assert not asked and len(pictures) == len(moves)
    explorer.compute(seed=9)
    assert asked                                                             # the counter does count


SMALL = {DenoisingExplorer: dict(steps=3, moment=2), SamplerLab: dict(view="guidance"), FieldLens: dict(steps=3, moment=1, view="blend"), EncodingLab: dict(steps=10, moment=10),
         TokenLens: dict(steps=3, moment=1), ResolutionLab: dict(steps=1, height=48)}


@pytest.mark.parametrize("kind", SMALL, ids=lambda k: k.__name__)
def test_copied_code_gives_the_same_picture(kind, tmp_path):
    explorer = kind() if kind is EncodingLab else kind(TINY.save_pretrained(tmp_path/"tiny"))
    pinned = asdict(replace(explorer.settings, **SMALL[kind], seed=3)) if kind is DenoisingExplorer else None
    *lines, last = explorer.code(pinned, **SMALL[kind]).splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert (kind is EncodingLab) != (str(tmp_path) in last)
    assert eval(last, names).png() == explorer.picture(pinned, **SMALL[kind]).png()
    if "steps" in names and kind is not ResolutionLab:
        data = explorer.compute(**SMALL[kind])
        assert_close(names["steps"][1].x, (data[1] if kind is DenoisingExplorer else data[1].step).x, atol=1e-5, rtol=0)    # lenses use the plain field
    if kind is ResolutionLab: assert_close(names["steps"][-1].x, explorer.compute(**SMALL[kind])["painted"], atol=1e-5, rtol=0)


def test_exports():
    explorer = DenoisingExplorer(TINY, steps=3)
    with Image.open(io.BytesIO(explorer.export("png", moment=1))) as picture: assert picture.format == "PNG" and picture.size[0] > 1800
    with Image.open(io.BytesIO(explorer.export("gif"))) as film: assert film.n_frames == 4
    rows = list(csv.DictReader(io.StringIO(explorer.export("csv").decode())))
    assert [float(r["t"]) for r in rows] == pytest.approx([0, 1/3, 2/3, 1]) and float(rows[-1]["preview_error"]) == 0
    with pytest.raises(ValueError, match="kind must be one of png, csv, gif, got 'pdf'"): explorer.export("pdf")
    with pytest.raises(ValueError, match="SamplerLab has no film"): SamplerLab(TINY).export("gif")


def test_curves_for_plotly():
    pytest.importorskip("plotly", reason="plotly is not installed (pip install -e '.[dev]')")
    explorer = TokenLens(TINY, steps=2)
    figure, chart = explorer.figure(), explore.charts_of(p for row in explorer.picture().rows for p in row)[0]
    assert [list(trace.y) for trace in figure.data] == [list(y) for _, y in chart.curves.values()]
    lab = SamplerLab(TINY, view="guidance")
    with pytest.raises(ValueError, match="there are no curves in this picture"): lab.figure()


def test_buttons_pin_copy_and_save():
    view = View(DenoisingExplorer(TINY, steps=3))
    sent = []
    view.canvas.send = lambda message, buffers=None: sent.append((message, buffers))
    view.latest.wait()
    before = view.board.size
    view.pin(), view.set(method="heun"), view.latest.wait()
    assert view.board.size != before and view.board.titles[0] == "pinned: method euler" and view.pin_button.description == "unpin"
    view.copy()
    assert sent[-1][0] == {"copy": view.written.value} and "pinned={" in view.written.value
    view.save("csv"), view.saver.join()
    assert sent[-1][0]["save"] == "DenoisingExplorer.csv" and sent[-1][1][0].startswith(b"pinned step,")
    view.pin(), view.latest.wait()
    assert view.pinned is None and view.board.size == before
    one = view.explorer.picture(moment=1)
    assert stack_boards(one, one, "a", "b").size[1] > 1.9 * one.size[1]


def test_fewer_steps_pull_the_moment_along():
    view = View(DenoisingExplorer(TINY, steps=10))
    view.set(moment=10), view.set(steps=4), view.latest.wait()
    assert view.settings.moment == 4 and view.boxes["moment"].max == 4 and view.player.max == 4 and view.shown == view.settings


@pytest.mark.parametrize("kind, bad, words", [
    (DenoisingExplorer, dict(classes="cat"), "unknown class 'cat'"), (DenoisingExplorer, dict(classes=" , "), "classes must name 1 to 16 images, got 0"),
    (DenoisingExplorer, dict(seed=-1), "seed must be whole, from 0"), (FieldLens, dict(classes="11"), "unknown class '11'"), (TokenLens, dict(seed=-5), "seed must be whole"),
    (SamplerLab, dict(classes="0-99"), "got 100"), (ResolutionLab, dict(seed=-2), "seed must be whole"), (EncodingLab, dict(seed=-2), "seed must not be negative")])
def test_a_mistake_is_one_line_and_keeps_the_picture(kind, bad, words):
    view = View(kind(TINY, **{DenoisingExplorer: dict(steps=2), EncodingLab: dict(steps=10), SamplerLab: dict(most=8, view="guidance")}.get(kind, {})))
    view.latest.wait()
    picture = view.canvas.png
    view.set(**bad), view.latest.wait()
    assert "role='alert'" in view.line.value and words in view.line.value.replace("&lt;", "<") and "\n" not in view.line.value
    assert view.canvas.png == picture
    view.copy()
    view.set(**{name: getattr(view.explorer.settings, name) for name in bad}), view.latest.wait()           # and all is well again
    assert "role='alert'" not in view.line.value and view.canvas.png == picture


def test_a_text_model_needs_its_encoder():
    changes = dict(num_classes=0, text_width=12, text_tokens=4, text_depth=1)
    model = make_tiny(**changes)
    view = View(DenoisingExplorer(model, steps=2))
    view.latest.wait()
    assert "model is a text model and needs its text encoder: give encode=" in view.line.value
    encode = lambda texts: torch.stack([torch.randn(4, 12, generator=torch.Generator().manual_seed(len(t))) for t in texts])
    for kind in (DenoisingExplorer, FieldLens, TokenLens):
        view = View(kind(model, encode, classes="a red cube; two cats", steps=2))
        view.latest.wait()
        assert "role='alert'" not in view.line.value, view.line.value
    assert len(view.explorer.compute()[0].step.x) == 2


def test_prompts_at_the_dashboard():
    "Typed over the digits, the shipped text model opens with its own encoder, asks for prompts, and draws each."
    from pixnerd.text_to_image import encoder_of
    dashboard = Dashboard("digits", encoder_of=encoder_of)
    dashboard.widget()
    dashboard.source.value = "scenes"
    view = dashboard.views["Denoise"]
    view.latest.wait()
    assert not dashboard.line.value and "role='alert'" not in view.line.value and view.boxes["classes"].description == "prompts"
    three = dict(classes="a red circle; a blue square at the top; four green stars", steps=2)
    view.set(**three), view.latest.wait()
    assert "role='alert'" not in view.line.value and len(view.explorer.compute(**three)[0].x) == 3 and "encode = load_text_encoder('words')" in view.explorer.code()
    view.set(classes="a purple circle"), view.latest.wait()
    assert "unknown words: 'purple'" in view.line.value


def test_a_linear_head_has_no_field():
    view = View(FieldLens(make_tiny(head="linear"), steps=2))
    view.latest.wait()
    assert "this model has a linear head, which writes no networks" in view.line.value


def test_the_monitor_reads_a_run_and_says_what_is_missing(tmp_path):
    monitor = TrainingMonitor(tmp_path/"none")
    view = follow_run(View(monitor))
    view.latest.wait()
    assert "no run in" in view.line.value and "role='alert'" in view.line.value
    run = tmp_path/"run"
    for _ in train(TrainConfig(out=str(run), steps=6, batch=4, log_every=2)): pass
    log, text = run/"log.jsonl", (run/"log.jsonl").read_text()
    log.unlink()
    view.set(folder=str(run)), view.latest.wait()
    assert "holds no steps: the run has not logged yet" in view.line.value
    lines = [json.dumps(json.loads(line) | {"gradient_noise": 1., "loss_by_time": None}) for line in text.splitlines()[:1]] + text.splitlines()[1:]
    log.write_text("\n".join(lines) + '\n{"step": 8, "lo')                    # new keys, a missing one, and a line cut off
    view.refresh(), view.latest.wait()
    assert "role='alert'" not in view.line.value, view.line.value
    assert len(view.board.table["step"]) == 3
    sampled = view.canvas.png
    (run/"samples").mkdir()
    Image.new("RGB", (64, 32), "red").save(run/"samples/step-000006.png")
    view.refresh(), view.latest.wait()
    assert view.canvas.png != sampled                                        # what the run itself drew goes first
    (run/"config.json").write_text("{")
    view.refresh(), view.latest.wait()
    assert "config.json is damaged" in view.line.value


def test_the_monitor_starts_and_stops_a_run(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), steps=1000, batch=4, log_every=1)
    view = follow_run(View(TrainingMonitor(config=config), start=False))
    start, stop = view.box.children[0].children[1:]
    start.click()
    while view.explorer.trainer.done < 3 and view.explorer.trainer.running: pass
    stop.click(), view.latest.wait()
    done = view.explorer.trainer.done
    assert not view.explorer.trainer.error and 3 <= done < 1000 and latest_checkpoint(tmp_path/"run").name == f"step-{done:06d}"
    assert "role='alert'" not in view.line.value and len(view.board.table["step"]) == done
    view.follow.value = False
    (tmp_path/"other").mkdir(), (tmp_path/"other/file").touch()
    broken = TrainingMonitor(config=replace(config, out=str(tmp_path/"other"))).trainer
    broken.start(), broken.thread.join()
    assert "holds files but no config.json of a run" in broken.error


def test_the_dashboard_loads_another_model_or_says_why_not(tmp_path):
    dashboard = Dashboard(TINY)
    box = dashboard.widget()
    assert list(dashboard.views) == ["Denoise"]                              # the others wait until they are looked at
    dashboard.source.value = str(tmp_path/"nothing")
    assert "no model" in dashboard.line.value and "role='alert'" in dashboard.line.value and list(dashboard.views) == ["Denoise"]
    TINY.save_pretrained(tmp_path/"tiny")
    dashboard.tabs.selected_index = 2
    dashboard.source.value = str(tmp_path/"tiny")
    assert not dashboard.line.value and list(dashboard.views) == ["Field"] and dashboard.subject.source == repr(str(tmp_path/"tiny"))
    for i in (0, 3, 4, 5, 6): dashboard.tabs.selected_index = i               # not the samplers, which take long
    assert len(dashboard.views) == 6 and box.children[1] is dashboard.tabs
    for view in dashboard.views.values(): view.latest.wait()


def test_a_notebook_gets_a_widget_and_a_twin():
    bundle = DenoisingExplorer(TINY, steps=2)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(bundle) and len(bundle["text/html"]) < 300_000
    assert 'type="range"' in bundle["text/html"] and "http" not in bundle["text/html"]
    bundle = TokenLens(TINY, steps=2)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(bundle)


def test_without_widgets_there_is_a_still_and_a_line(root):
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'ipywidgets', 'anywidget', 'plotly', 'traitlets', 'IPython'}: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import pixnerd, pixnerd.explore
from pixnerd.lenses import EncodingLab
lab = EncodingLab(steps=10)
print(sorted(lab._repr_mimebundle_()))
for view in lab.widget, lab.figure:
    try: view()
    except ImportError as e: print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    said = "a live view needs ipywidgets, which is not installed: pip install 'pixnerd[explore]'"
    assert done.stdout.splitlines() == [said, "['image/png', 'text/plain']", said, said.replace("ipywidgets", "plotly")], done.stderr[-1500:]

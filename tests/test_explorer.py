"Explorers without a browser: random controls, the last wish, two at once, clicks, exports, copied code, and bad input."

import csv
import io
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
from tiny import make_tiny
from torch.testing import assert_close

pytest.importorskip("ipywidgets", reason="the widgets are not installed (pip install -e '.[dev]')")
pytest.importorskip("anywidget", reason="the widgets are not installed (pip install -e '.[dev]')")
from pixnerd import boards
from pixnerd.encoding_lab import EncodingLab
from pixnerd.explorer import LatestOnlyWorker, View
from pixnerd.explorers import DenoisingExplorer, ResolutionLab, SamplerLab
from pixnerd.lenses import FIELD_VIEWS, FieldLens, TokenLens
from pixnerd.samplers import METHODS, Solver, euler
from pixnerd.show import Slider
from pixnerd.text_to_image import load_text_encoder

torch.manual_seed(0)
TINY = make_tiny()


@pytest.fixture
def coarse(monkeypatch):
    "Boards at a quarter of their pixels: what is tested is not their beauty."
    monkeypatch.setattr(boards, "_SCALE", 1)


# What decides a computation takes few values here, so that most states are in the cache; what is free takes all.
RUN = dict(classes=["3", "0-3"], seed=[0, 7], steps=[1, 3], guidance_scale=[1., 8.])
CASES = {
    DenoisingExplorer: RUN | dict(method=list(METHODS), order=[2, 4], guidance_interval=[(0., 1.), (.3, .3)],
                                  time_shift=[.5, 6.]),
    SamplerLab: dict(classes=["3"], seed=[0], guidance_scale=[2.], guidance_interval=[(0., 1.)], time_shift=[1.],
                     most=[8], view=["solvers", "guidance"]),
    FieldLens: RUN,
    TokenLens: RUN,
    EncodingLab: dict(steps=[10], seed=[0], side=[8, 16], width=[8], frequencies=[2], target=["rings", "stroke"],
                      encoding=["dct"], against=["sincos", "dct"], normalise=["none", "W1 and W2"]),
    ResolutionLab: dict(classes=["3", "0-3"], seed=[0], steps=[1], guidance_scale=[2.], zoom=[1, 2],
                        height=[16, 32, 48], width=[16, 64]),
}


@st.composite
def states(draw, explorer, few):
    "A random state of an explorer's controls, within their ends."
    values = {}
    for name, c in explorer.controls(explorer.settings).items():
        if name in few: values[name] = draw(st.sampled_from(few[name]))
        elif isinstance(c, Slider):
            values[name] = draw((st.integers if isinstance(c.low, int) else st.floats)(c.low, c.high))
        else: values[name] = draw(st.sampled_from(list(c.values)))
    return values


@pytest.mark.parametrize("kind", CASES, ids=lambda k: k.__name__)
def test_200_random_states_raise_nothing(kind, coarse):
    explorer = kind(TINY)
    view = View(explorer, start=False)
    click = st.fixed_dictionaries({"x": st.floats(0, .999), "y": st.floats(0, .999)})
    arrow = st.fixed_dictionaries({"key": st.sampled_from(["Left", "Right", "Up", "Down"])})

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def one(data):
        view.set(**data.draw(states(explorer, CASES[kind])))
        for message in (click, arrow):
            if data.draw(st.booleans()): view.answer(None, data.draw(message))
        view.worker.wait()
        assert "role='alert'" not in view.line.value, (view.settings, view.line.value)
        assert view.shown == view.settings
        with Image.open(io.BytesIO(view.canvas.png)) as picture: assert min(picture.size) > 100
        assert next(csv.reader(io.StringIO(view.board.csv())))
    one()


def test_rapid_dragging_leaves_the_last_state_shown():
    view = View(DenoisingExplorer(TINY, steps=6))
    wishes = random.Random(0)
    for _ in range(60): view.set(seed=wishes.randrange(1000), moment=wishes.randrange(7))
    view.set(seed=5, moment=4)
    view.worker.wait()
    assert view.shown == view.settings and (view.settings.seed, view.settings.moment) == (5, 4)
    assert view.canvas.png == view.explorer.picture(seed=5, moment=4).png()
    assert len(view.explorer.cache) < 60                                     # most of them were dropped on the way


def test_a_newer_wish_abandons_long_work():
    lab = SamplerLab(TINY, most=8)
    view, begun, told = View(lab, start=False), threading.Event(), []
    say = view.say

    def listen(text, wrong=False):
        told.append(text)
        begun.set()
        say(text, wrong)
    view.say = listen
    view.set(seed=1)
    assert begun.wait(60)
    view.set(seed=2)
    view.worker.wait()
    assert view.shown.seed == 2 and [s.seed for s in lab.cache] == [2]       # the first was dropped, and left nothing
    assert told[0].startswith("reference: step")


def test_the_worker_survives_an_error():
    done = []

    def work(request, stale):
        if request == 1: raise RuntimeError("broken")
        done.append(request)
    worker, hook = LatestOnlyWorker(work), threading.excepthook
    threading.excepthook = lambda _: None
    try:
        worker.ask(1)
        worker.wait()
    finally: threading.excepthook = hook
    worker.ask(2)
    worker.wait()
    assert done == [2]


def test_explorers_of_one_model_do_not_disturb_one_another():
    kinds = [(DenoisingExplorer, "moment"), (FieldLens, "moment"), (TokenLens, "token"), (DenoisingExplorer, "moment")]
    views = [View(kind(TINY, seed=i, steps=6)) for i, (kind, _) in enumerate(kinds)]
    alone = [kind(TINY, seed=i, steps=6) for i, (kind, _) in enumerate(kinds)]

    def drag(view, name):
        for i in range(12): view.set(seed=i % 4, **{name: i % 5})
    drags = [threading.Thread(target=drag, args=(view, name)) for view, (_, name) in zip(views, kinds)]
    for d in drags: d.start()
    for d in drags: d.join()
    for v in views: v.worker.wait()
    for v, a in zip(views, alone):
        assert v.canvas.png == a.picture(**asdict(v.settings)).png() and v.shown == v.settings
    assert not any(m._forward_pre_hooks for m in TINY.modules())


@pytest.mark.parametrize("kind, moves", [
    (DenoisingExplorer, [dict(moment=m) for m in range(5)]),
    (FieldLens, [dict(moment=m, patch=m, view=v) for m, v in enumerate(FIELD_VIEWS) if m < 4]),
    (TokenLens, [dict(moment=m, token=m, block=m % 2) for m in range(4)])])
def test_cached_moves_ask_the_model_nothing(kind, moves):
    explorer, asked = kind(TINY, steps=4), []
    explorer.compute()
    explorer.subject.model.register_forward_hook(lambda *_: asked.append(1))
    pictures = {explorer.picture(**move).png() for move in moves}
    assert not asked and len(pictures) == len(moves)
    explorer.compute(seed=9)
    assert asked                                                             # the counter does count


def test_an_added_solver_is_in_the_menu_and_in_the_lab(monkeypatch):
    monkeypatch.setitem(METHODS, "again", Solver(euler, lambda steps: steps, label="Euler again"))
    explorer = DenoisingExplorer(TINY, steps=2)
    assert "again" in explorer.controls(explorer.settings)["method"].values
    assert torch.equal(explorer.compute(method="again")[-1].x, explorer.compute()[-1].x)
    lab = SamplerLab(TINY, most=8)
    rows = list(csv.DictReader(io.StringIO(lab.picture().csv())))
    distances = {(r["solver"], r["steps"]): r["distance"] for r in rows}
    assert distances["Euler again", "8"] == distances["Euler", "8"]


def test_order_can_be_moved_only_where_the_solver_has_orders():
    view = View(DenoisingExplorer(TINY, steps=2))
    assert view.boxes["order"].disabled
    view.set(method="adams", order=4)
    assert not view.boxes["order"].disabled and view.settings.order == 4
    view.set(method="heun")
    view.worker.wait()
    assert view.boxes["order"].disabled and "role='alert'" not in view.line.value


SMALL = {DenoisingExplorer: dict(steps=3, moment=2),
         SamplerLab: dict(view="guidance"),
         FieldLens: dict(steps=3, moment=1, view="blend"),
         EncodingLab: dict(steps=10, moment=10),
         TokenLens: dict(steps=3, moment=1, guidance_scale=1.1 + 2.2),
         ResolutionLab: dict(steps=1, height=48, off_grid="interpolate")}


@pytest.mark.parametrize("kind", SMALL, ids=lambda k: k.__name__)
def test_copied_code_gives_the_same_picture(kind, tmp_path):
    explorer = kind() if kind is EncodingLab else kind(TINY.save_pretrained(tmp_path/"tiny"))
    pinned = asdict(replace(explorer.settings, **SMALL[kind], seed=3)) if kind is DenoisingExplorer else None
    code = explorer.code(pinned, **SMALL[kind])
    *lines, last = code.splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert (kind is EncodingLab) != (str(tmp_path) in last)
    assert "000000" not in code.replace(str(tmp_path), "")                   # 3.3, not 3.3000000000000003
    assert eval(last, names).png() == explorer.picture(pinned, **SMALL[kind]).png()
    if "steps" not in names: return
    data, steps = explorer.compute(**SMALL[kind]), names["steps"]
    if kind is ResolutionLab: ours, theirs = data["painted"], steps[-1].x
    else: ours, theirs = (data[1] if kind is DenoisingExplorer else data[1].step).x, steps[1].x
    assert_close(theirs, ours, atol=1e-5, rtol=0)                            # lenses use the plain field


@pytest.mark.parametrize("kind", [DenoisingExplorer, SamplerLab, TokenLens])
def test_copied_code_of_a_text_model_brings_its_encoder(kind):
    explorer = kind("scenes", encode=load_text_encoder("words"))
    changes = dict(most=8) if kind is SamplerLab else dict(steps=2, moment=1)
    *lines, last = explorer.code(**changes).splitlines()
    names = {}
    exec("\n".join(lines), names)
    made, _, call = last.partition(".picture")
    again = eval(made, names)
    assert torch.equal(again.subject.condition("a star")[0], explorer.subject.condition("a star")[0])
    if kind is not SamplerLab: assert eval("again.picture" + call).png() == explorer.picture(**changes).png()


def test_attention_to_words_names_the_words():
    lens = TokenLens("scenes", encode=load_text_encoder("words"), steps=1, moment=0)
    for prompts, image, words in (("a red star", 0, 3), ("a red star; two small, blue circles.", 1, 4)):
        board = lens.picture(classes=prompts, image=image)
        [[_, attention, _]] = board.rows
        panel = next(panel for panel in attention.panels if "words" in panel.heading)
        assert panel.down[:words] == ["a red star", "two small blue circles"][image].split()
        assert set(panel.down[words:]) == {"–"} and panel.cells == (12, len(panel.across))


def test_exports():
    explorer = DenoisingExplorer(TINY, steps=3)
    with Image.open(io.BytesIO(explorer.export("png", moment=1))) as picture:
        assert picture.format == "PNG" and picture.size[0] > 1800
    with Image.open(io.BytesIO(explorer.export("gif"))) as film: assert film.n_frames == 4
    rows = list(csv.DictReader(io.StringIO(explorer.export("csv").decode())))
    assert [float(r["t"]) for r in rows] == pytest.approx([0, 1/3, 2/3, 1]) and float(rows[-1]["preview_error"]) == 0
    for one, kinds, bad in ((explorer, "png, csv, gif", "pdf"), (SamplerLab(TINY), "png, csv", "gif")):
        words = f"kind of a {type(one).__name__} must be one of {kinds}, got '{bad}'"
        with pytest.raises(ValueError, match=words): one.export(bad)


def test_curves_for_plotly():
    pytest.importorskip("plotly", reason="plotly is not installed (pip install -e '.[dev]')")
    explorer = TokenLens(TINY, steps=2)
    figure = explorer.figure()
    chart = explorer.picture().charts[0]
    assert [list(trace.y) for trace in figure.data] == [list(y) for _, y in chart.curves.values()]
    lab = SamplerLab(TINY, view="guidance")
    with pytest.raises(ValueError, match="there are no curves in this picture"): lab.figure()


def test_buttons_pin_copy_and_save():
    view = View(DenoisingExplorer(TINY, steps=3))
    sent = []
    view.canvas.send = lambda message, buffers=None: sent.append((message, buffers))
    view.worker.wait()
    before = view.board.size
    view.pin()
    view.set(method="heun")
    view.worker.wait()
    assert view.board.size != before and view.board.titles[0] == "pinned: method euler"
    assert view.unpin_button.layout.display == ""
    view.copy()
    assert sent[-1][0] == {"copy": view.written.value} and "pinned=[{" in view.written.value
    assert view.written.layout.display == ""
    view.save("csv")
    view.saver.join()
    assert sent[-1][0]["save"] == "DenoisingExplorer-model-method-heun-steps-3-moment-3.csv"
    assert sent[-1][1][0].startswith(b"pinned step,")
    view.unpin()
    view.worker.wait()
    view.set(method="euler")
    assert view.written.layout.display == "none"                             # it was another picture's code
    view.worker.wait()
    assert not view.pinned and view.board.size == before and view.unpin_button.layout.display == "none"


def test_several_runs_from_one_noise_are_overlaid():
    view = View(DenoisingExplorer(TINY, steps=3, seed=7))
    for method in ("euler", "heun", "adams"):
        view.set(method=method)
        view.pin()
    view.set(method="heun", steps=2)
    view.worker.wait()
    titles = [title for title in view.board.titles if title]
    assert titles == ["pinned 1: method euler, steps 3", "pinned 2: method heun, steps 3",
                      "pinned 3: method adams, steps 3", "now: method heun, steps 2"]
    chart = view.board.charts[-1]
    assert list(chart.curves) == ["pinned 1", "pinned 2", "pinned 3", "now"]
    ends = (dict(method="euler"), dict(steps=2, method="heun"))
    each = [view.explorer.picture(seed=7, **s).charts[0].curves for s in ends]
    for name, (curve,) in zip(("pinned 1", "now"), (c.values() for c in each)):
        assert [list(v) for v in chart.curves[name]] == [list(v) for v in curve]
    assert {"pinned 3 step", "step"} <= set(view.board.table)
    one = view.explorer.picture(moment=1)
    assert view.board.size[1] > 2 * one.size[1]
    view.copy()
    picture = eval(view.written.value.splitlines()[-1].replace("model", "TINY"))
    assert picture.png() == view.canvas.png


def test_fewer_steps_pull_the_moment_along():
    view = View(DenoisingExplorer(TINY, steps=10))
    view.set(moment=10)
    view.set(steps=4)
    view.worker.wait()
    assert view.settings.moment == 4 and view.boxes["moment"].max == 4 and view.player.max == 4
    assert view.shown == view.settings


@pytest.mark.parametrize("kind, bad, words", [
    (DenoisingExplorer, dict(classes="cat"), "unknown class 'cat'"),
    (DenoisingExplorer, dict(classes=" , "), "classes must name at least one class"),
    (DenoisingExplorer, dict(seed=-1), "seed must be whole, from 0"),
    (FieldLens, dict(classes="11"), "unknown class '11'"),
    (TokenLens, dict(seed=-5), "seed must be whole"),
    (SamplerLab, dict(classes="0-9, 0-9"), "got 20"),
    (ResolutionLab, dict(seed=-2), "seed must be whole"),
    (EncodingLab, dict(seed=-2), "seed must not be negative")])
def test_a_mistake_is_one_line_and_keeps_the_picture(kind, bad, words):
    start = {DenoisingExplorer: dict(steps=2), EncodingLab: dict(steps=10), SamplerLab: dict(most=8, view="guidance")}
    view = View(kind(TINY, **start.get(kind, {})))
    view.worker.wait()
    picture = view.canvas.png
    view.set(**bad)
    view.worker.wait()
    assert "role='alert'" in view.line.value and words in view.line.value.replace("&lt;", "<")
    assert "\n" not in view.line.value and view.canvas.png == picture
    view.copy()
    view.set(**{name: getattr(view.explorer.settings, name) for name in bad})           # and all is well again
    view.worker.wait()
    assert "role='alert'" not in view.line.value and view.canvas.png == picture


def test_a_mistake_goes_back_from_a_picture_that_was_never_finished():
    view = View(DenoisingExplorer(TINY, steps=2))
    view.worker.wait()
    finished, s = view.canvas.png, view.settings
    view.put(view.explorer.board(s, view.explorer.compute()[:1]), s)         # a run was just begun
    assert view.canvas.png != finished
    view.set(classes="cat")
    view.worker.wait()
    assert view.canvas.png == finished and "role='alert'" in view.line.value


def test_a_text_model_needs_its_encoder():
    changes = dict(num_classes=0, text_width=12, text_tokens=4, text_depth=1)
    model = make_tiny(**changes)
    view = View(DenoisingExplorer(model, steps=2))
    view.worker.wait()
    assert "model is a text model and needs its text encoder: give encode=" in view.line.value

    def encode(texts):
        return torch.stack([torch.randn(4, 12, generator=torch.Generator().manual_seed(len(t))) for t in texts])
    for kind in (DenoisingExplorer, FieldLens, TokenLens):
        view = View(kind(model, encode, classes="a red cube; two cats", steps=2))
        view.worker.wait()
        assert "role='alert'" not in view.line.value, view.line.value
    assert len(view.explorer.compute()[0].step.x) == 2


def test_a_linear_head_has_no_field():
    view = View(FieldLens(make_tiny(head="linear"), steps=2))
    view.worker.wait()
    assert "this model has a linear head, which writes no networks" in view.line.value


def test_a_notebook_gets_a_widget_and_a_twin():
    bundle = DenoisingExplorer(TINY, steps=2)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(bundle)
    assert len(bundle["text/html"]) < 300_000
    assert 'type="range"' in bundle["text/html"] and "http" not in bundle["text/html"]
    bundle = TokenLens(TINY, steps=2)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(bundle)


def test_without_widgets_there_is_a_still_and_a_line(root):
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = {'ipywidgets', 'anywidget', 'plotly', 'traitlets', 'IPython'}
        if name.split('.')[0] in absent: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import pixnerd, pixnerd.monitor
from pixnerd.encoding_lab import EncodingLab
lab = EncodingLab(steps=10)
print(sorted(lab._repr_mimebundle_()))
for view in lab.widget, lab.figure:
    try: view()
    except ImportError as e: print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    said = "a live view needs ipywidgets, which is not installed: pip install 'pixnerd[explore]'"
    lines = [said, "['image/png', 'text/plain']", said, said.replace("ipywidgets", "plotly")]
    assert done.stdout.splitlines() == lines, done.stderr[-1500:]

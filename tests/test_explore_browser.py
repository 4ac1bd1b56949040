"The dashboard in Voila and in JupyterLab: every explorer appears, every control moves its picture, nothing complains."

import pytest
import torch

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[dev]')")
Error = playwright.Error

nbformat = pytest.importorskip("nbformat", reason="the notebook tools are not installed (pip install -e '.[dev]')")
pytest.importorskip("voila", reason="voila is not installed (pip install -e '.[dev]')")
from notebooks import read
from served import serve_voila, until
from test_lab import CELLS, CHROMIUM, IDLE, PIXELS, lab, page  # noqa: F401  (lab and page are fixtures)

from pixnerd import PixNerd
from pixnerd.monitor import EXPLORERS, Dashboard
from pixnerd.show import Choice, Menu, Slider, Span

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture
def room(root, tmp_path):
    "A folder with the dashboard, without its stored outputs, and a tiny checkpoint, so that all is computed fast."
    room = tmp_path/"room"
    room.mkdir(exist_ok=True)
    nb = read(root/"nbs/dashboard.ipynb")
    for cell in nb.cells:
        if cell.cell_type == "code": cell.outputs = []
    nbformat.write(nb, room/"dashboard.ipynb")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = PixNerd.from_preset("digits", width=16, heads=2, depth=2, field_width=8, field_depth=2)
        torch.nn.init.normal_(model.decoder.out.linear.weight, std=.3)
    model.save_pretrained(room/"tiny")
    return room


@pytest.fixture
def voila(room, tmp_path):
    "A Voila server over the dashboard, as `make app` starts it; its address."
    with serve_voila(room, tmp_path) as address: yield address


PRESENT = "i => !i.hidden && i.naturalWidth > 100"


class Tab:
    "The tab that is open: its picture, its line, and its controls by name."
    def __init__(self, page): self.page, self.picture = page, page.locator("img.pixnerd-board:visible")
    def line(self): return self.page.locator("[role=alert]:visible")
    def pixels(self): return until("the picture can be read", self.read, 10)   # while it is being replaced it cannot

    def read(self):
        try: return self.picture.evaluate(PIXELS)
        except Error: return None

    def row(self, name):
        label = self.page.locator(f'.widget-label:text-is("{name.replace("_", " ")}")')
        return self.page.locator(".widget-inline-hbox:visible", has=label).first

    def appears(self, what):
        def there(): return self.picture.count() == 1 and self.picture.evaluate(PRESENT)
        until(f"{what} appears", there, 60)
        seen = []

        def settled():                                       # it is drawn as it is computed: wait for the last
            self.page.wait_for_timeout(250)
            seen.append(self.pixels())
            return len(seen) > 1 and seen[-1] == seen[-2]
        until(f"{what} is complete", settled, 60)
        assert not self.line().count(), self.line().inner_text()

    def move(self, name, control):
        "Move one control as hands do, and wait until the picture is another."
        row, before = self.row(name), self.pixels()
        if isinstance(control, Menu):
            now = row.locator("select").evaluate("s => s.value")
            row.locator("select").select_option(next(v for v in control.values if v != now))
        elif isinstance(control, Slider | Choice | Span):
            handle = row.locator(".noUi-handle").first
            handle.focus()
            last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
            for _ in range(3): self.page.keyboard.press("ArrowLeft" if last else "ArrowRight")
        else:
            row.locator("input").fill({"classes": "7, 2", "seed": "3"}[name])
            row.locator("input").press("Enter")
        try: until(f"{name} moves the picture", lambda: self.pixels() != before, 60)
        except AssertionError as e:
            said = self.page.locator(".widget-html:visible").all_inner_texts()
            raise AssertionError(f"{e}; the line says {said}") from None
        assert not self.line().count(), f"{name}: {self.line().inner_text()}"


def watch(page):
    "Collects what the page complains about, less what it cannot load without a network."
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))

    def hear(message):
        expected = "net::ERR" in message.text or "404" in message.text
        if message.type == "error" and not expected: errors.append(message.text)
    page.on("console", hear)
    return errors


def open_tab(page, name): page.locator(".lm-TabBar-tab:visible", has_text=name).first.click()


@pytest.mark.timeout(600)                                   # a busy machine, not a slow page
def test_voila_every_control_moves_its_picture(voila, page, room):
    errors, tab, tiny = watch(page), Tab(page), Dashboard(room/"tiny")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(voila)
    tab.appears("Denoise, with the digits")
    assert tab.picture.bounding_box()["y"] < 500            # on the first screen, and above any photograph of it
    source = page.locator("input[type=text]:visible").first
    before = tab.pixels()
    source.fill("nowhere")
    source.press("Enter")
    until("a missing checkpoint is one line", lambda: page.locator("[role=alert]:visible").count() == 1, 30)
    assert "no model 'nowhere'" in tab.line().inner_text() and tab.pixels() == before
    source.fill("tiny")
    source.press("Enter")

    def other(): return not tab.line().count() and tab.picture.count() == 1 and tab.picture.evaluate(PRESENT)
    until("the other checkpoint is shown", lambda: other() and tab.pixels() != before, 60)
    first = {"Denoise": ["method"], "Field": ["view"], "Samplers": ["most"]}    # fewer runs are faster
    for name in EXPLORERS:
        open_tab(page, name)
        tab.appears(name)
        explorer = tiny.explorer(name)
        controls = explorer.controls(explorer.settings)
        if name == "Denoise":
            tab.move("method", controls["method"])
            tab.row("method").locator("select").select_option("adams")
        if name == "Field": tab.row("view").locator("select").select_option("blend")    # where the donor counts
        for control in [c for c in controls if c not in first.get(name, [])]:
            if control == "order":                                              # Adams' alone
                until("adams is drawn", lambda: page.locator(".widget-html:visible", has_text="play").count(), 30)
            if name == "Field" and control == "block":
                tab.row("view").locator("select").select_option("weights")              # where the field block counts
            tab.move(control, controls[control])
            if name == "Field" and control == "block": tab.row("view").locator("select").select_option("blend")
        if name == "Samplers": tab.move("most", controls["most"])
    told = dict(page.locator(".widget-inline-hbox:visible").evaluate_all(
        "rows => rows.map(row => [row.querySelector('.widget-label')?.textContent, row.title])"))
    assert len(told) > 8 and all(title for label, title in told.items() if label and label != "checkpoint"), told
    named = page.locator(".noUi-handle").evaluate_all("handles => handles.map(handle => handle.ariaLabel)")
    assert len(named) > 20 and all(named), named                               # for screen readers
    named = page.locator("button:visible").evaluate_all("buttons => buttons.map(b => b.textContent.trim() || b.title)")
    assert all(named), named
    open_tab(page, "Denoise")
    tab.picture.wait_for()
    source.focus()
    for _ in range(24):                                      # what the keyboard is at can be seen
        page.keyboard.press("Tab")
        at = page.evaluate("() => [document.activeElement.className, getComputedStyle(document.activeElement).outline]")
        assert at[1].endswith("solid 3px"), at
    open_tab(page, "Training")
    tab.appears("Training, before there is a run")           # says so, without alarm, and offers to start one
    assert page.get_by_role("button", name="start").locator("visible=true").count() == 1
    page.get_by_role("button", name="start").locator("visible=true").click()

    def said(words): return page.locator(".widget-html:visible", has_text=words).count()
    until("it says that it trains", lambda: said("training, step"), 30)
    page.get_by_role("button", name="stop").locator("visible=true").click()
    until("it says where it stopped", lambda: said("stopped at step"), 60)
    folder = tab.row("folder").locator("input")
    folder.fill("../runs/elsewhere")
    folder.press("Enter")
    until("a missing run is one line", lambda: tab.line().count() == 1, 30)
    assert "no run in '../runs/elsewhere': no config.json there" in tab.line().inner_text()
    assert not errors, errors[:3]


@pytest.mark.timeout(600)
def test_lab_every_explorer_appears_and_answers(lab, room, page):
    errors, tab = watch(page), Tab(page)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{lab}/lab/workspaces/t/tree/dashboard.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    until("the kernel is up", lambda: page.evaluate(IDLE), 60)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()
    tab.appears("Denoise")

    before = tab.pixels()
    tab.picture.focus()
    page.keyboard.press("ArrowRight")                       # the picture hears keys
    until("a key moves the picture", lambda: tab.pixels() != before, 30)
    before = tab.pixels()
    box = tab.picture.bounding_box()
    tab.picture.click(position={"x": .045 * box["width"], "y": .7 * box["height"]})     # and clicks: a small state
    until("a click moves the picture", lambda: tab.pixels() != before, 30)
    until("moment follows the click", lambda: tab.row("moment").locator(".widget-readout").inner_text() == "0", 30)
    before = tab.pixels()
    page.locator("button:visible", has=page.locator(".fa-play")).first.click()
    until("play moves the picture", lambda: tab.pixels() != before, 30)
    page.locator("button:visible", has=page.locator(".fa-stop, .fa-pause")).first.click()
    page.get_by_role("button", name="copy as code").locator("visible=true").click()

    def copied(): return page.evaluate("() => navigator.clipboard.readText()")
    until("the code is on the clipboard", lambda: "DenoisingExplorer('digits').picture(moment=" in copied(), 30)
    before = tab.picture.evaluate("i => i.naturalHeight")
    for method in ("heun", "adams"):
        page.locator("button:visible", has_text="pin").first.click()
        tab.row("method").locator("select").select_option(method)
    until("two are pinned above", lambda: tab.picture.evaluate("i => i.naturalHeight") > 1.4 * before, 60)
    page.locator("button:visible", has_text="unpin").click()
    until("they are gone", lambda: tab.picture.evaluate("i => i.naturalHeight") == before, 60)
    for kind, head in (("PNG", b"\x89PNG"), ("CSV", b"step,t,")):
        with page.expect_download() as download: page.locator("button:visible", has_text=kind).click()
        name = download.value.suggested_filename
        assert name.startswith("DenoisingExplorer-digits-method-adams-moment-") and name.endswith(f".{kind.lower()}")
        assert download.value.path().read_bytes().startswith(head)

    source = page.locator(".jp-OutputArea-output input[type=text]:visible").first
    source.fill("tiny")
    source.press("Enter")
    moved = {"Samplers": "chosen", "Field": "patch", "Encodings": "moment", "Tokens": "token", "Resolution": "patch"}
    for name, control in moved.items():
        open_tab(page.locator(".jp-OutputArea-output"), name)
        tab.appears(name)
        tab.move(control, Slider(0, 1, 0))
    assert not [e for cell in page.evaluate(CELLS) for e in cell["errors"]] and not errors, errors[:3]

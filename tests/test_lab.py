"Notebook 03 as a person meets it: JupyterLab in a browser, every cell run, a slider moved, the picture changing."

import json
import shutil

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook tools are not installed (pip install -e '.[dev]')")
from notebooks import read, skipped
from served import serve_lab, until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

# The notebook's cells as JupyterLab holds them, whether on screen or not.
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type == 'code' && cell.model.sharedModel.source.trim())
  .map(cell => ({
    ran: cell.model.executionCount !== null,
    errors: cell.model.outputs.toJSON().filter(o => o.output_type == 'error')
  }))"""
IDLE = "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
# A checksum of a picture's pixels, once they are there: its address changes even when it does not.
PIXELS = """async picture => {
  await picture.decode();
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(picture, 0, 0);
  const digest = await crypto.subtle.digest('SHA-256', context.getImageData(0, 0, width, height).data);
  return [width, height, ...new Uint8Array(digest)].join();
}"""


@pytest.fixture
def lab(tmp_path):
    "A JupyterLab server over `tmp_path/room`, with a home and settings of its own; its address."
    settings = tmp_path/"config/labconfig"
    settings.mkdir(parents=True)
    (tmp_path/"room").mkdir()
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (settings/"page_config.json").write_text(json.dumps(quiet))
    with serve_lab(tmp_path/"room", tmp_path) as address: yield address


@pytest.fixture
def page(tmp_path):
    "A page in Chromium; its last sight is kept as screen.png."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        page.screenshot(path=tmp_path/"screen.png")
        browser.close()


@pytest.mark.timeout(600)                                   # a busy machine, not a slow notebook
@pytest.mark.parametrize("notebook", ["nbs/03_neural_field.ipynb"])
def test_the_slider_moves_the_picture(lab, page, root, tmp_path, notebook):
    nb = read(root/notebook)
    nb.cells = [cell for cell in nb.cells if not skipped(cell)]
    for cell in nb.cells:
        if cell.cell_type == "code": cell.outputs = []      # what is seen below was made here
    copy = tmp_path/"room"/notebook
    copy.parent.mkdir(parents=True)
    nbformat.write(nb, copy)
    if (root/"nbs/images").exists(): shutil.copytree(root/"nbs/images", copy.parent/"images")

    page.goto(f"{lab}/lab/workspaces/t/tree/{notebook}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    until("the kernel is up", lambda: page.evaluate(IDLE), 60)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()

    def errors(): return [error for cell in page.evaluate(CELLS) for error in cell["errors"]]
    def ran(): return all(cell["ran"] for cell in page.evaluate(CELLS)) and page.evaluate(IDLE)
    until("every cell has run", lambda: errors() or ran(), 420, pause=.5)
    assert not errors(), errors()[0]["evalue"]

    outputs = page.locator(".jp-OutputArea-output", has=page.locator(".widget-slider"))
    explorer = outputs.filter(has=page.locator("img")).first
    picture, handle = explorer.locator("img").first, explorer.locator(".widget-slider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    before, address = picture.evaluate(PIXELS), picture.get_attribute("src")
    last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    handle.focus()
    page.keyboard.press("ArrowLeft" if last else "ArrowRight")

    def another(): return picture.get_attribute("src") != address and picture.evaluate(PIXELS) != before
    until("the picture is another", another, 60)
    assert not errors(), errors()[0]["evalue"]

"The site as Quarto renders it, without a warning, and as a browser shows it: nothing cut, missing, or from elsewhere."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from notebooks import ROOT

SITE = "https://pixnerd.github.io/pixnerd/"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(shutil.which("quarto") is None, reason="no Quarto here (https://quarto.org/docs/get-started/)"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.timeout(1800)]

SEEN = """() => ({
  wide: document.scrollingElement.scrollWidth - innerWidth,
  broken: [...document.images].filter(picture => picture.complete && !picture.naturalWidth).map(picture => picture.src),
  first: [...document.querySelectorAll('main p')].find(p => !p.closest('header'))?.innerText ?? '',
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "The site, built in a copy of the project as the publishing workflow builds it."
    room = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in "nbs", "pixnerd", "tools": shutil.copytree(ROOT/name, room/name, ignore=ignored)
    for name in "settings.ini", "_quarto.yml": shutil.copy(ROOT/name, room)
    made = subprocess.run([sys.executable, "tools/pages.py", "docs"], cwd=room, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(room)})
    assert not made.returncode, made.stdout[-3000:]
    assert not re.search("WARN|UserWarning", made.stdout), made.stdout
    return room/"_docs"


@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_pages_in_a_browser(site, width, scheme):
    from playwright.sync_api import sync_playwright
    found, now = [], ""

    def fault(told): found.append(f"{now}: {told}")

    def answer(route):
        path = site/unquote(urlsplit(route.request.url).path.removeprefix(urlsplit(SITE).path))
        if route.request.url.startswith(SITE) and path.is_file(): return route.fulfill(path=path)
        fault(f"asks for {route.request.url}")
        route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.route("**/*", answer)
        page.on("console", lambda said: said.type in ("error", "warning") and fault(f"console: {said.text}"))
        page.on("pageerror", lambda error: fault(f"script: {error}"))
        for path in sorted(site.rglob("*.html")):
            now = path.relative_to(site).as_posix()
            if now.startswith("site_libs/"): continue
            page.goto(SITE + now)
            seen = page.evaluate(SEEN)
            if seen["wide"] > 0: fault(f"scrolls sideways by {seen['wide']} px")
            if seen["broken"]: fault(f"pictures that are not there: {seen['broken']}")
            if len(seen["first"]) < 20 or seen["first"].startswith("---"): fault(f"begins with {seen['first']!r}")
        browser.close()
    assert not found, "\n".join(found)


def test_first_page_is_light_and_cards_have_addresses(site):
    assert (site/"index.html").stat().st_size < 200_000 and (site/"404.html").is_file()
    for path in site.rglob("*.html"):
        cards = re.findall(r'<meta (?:property="og|name="twitter):image" content="([^"]*)', path.read_text())
        assert all(card.startswith(SITE) for card in cards), path.name

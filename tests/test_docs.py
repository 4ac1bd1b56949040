"What a reader meets: the notebooks as stored, the pages nbdev makes of them, the links between them, and the README."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

pytest.importorskip("nbdev", reason="the notebook tools are not installed (pip install -e '.[dev]')")
import nbformat
import notebooks
import yaml
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from notebooks import NBS, ROOT

PATHS = {p.relative_to(NBS).as_posix(): p for p in notebooks.notebooks()}


@pytest.mark.parametrize("name", PATHS)
def test_notebook_as_stored(name):
    assert not (faults := notebooks.faults(notebooks.read(PATHS[name]))), "\n".join(faults)
    assert (kb := PATHS[name].stat().st_size//1024) <= notebooks.MAX_KB, f"{kb} KB"


def test_package_is_what_the_notebooks_export(): assert notebooks.export_check()


def test_readme_is_current(): assert notebooks.readme(check=True)


def test_sidebar_lists_every_notebook_once():
    def files(contents):
        for entry in contents: yield from [entry] if isinstance(entry, str) else files(entry["contents"])
    site = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
    assert list(files(site["website"]["sidebar"]["contents"])) == list(PATHS), "the sidebar of _quarto.yml against nbs/, in reading order"


# --- the pages ---

class Page:
    "A notebook as nbdev hands it to Quarto, rendered by nbconvert instead (Quarto is not on PyPI)."

    def __init__(self, path: Path):
        nb = nbformat.read(path, as_version=4)
        front, *nb.cells = nb.cells
        self.front = yaml.safe_load(front.source.strip().strip("-"))
        self.soup = BeautifulSoup(HTMLExporter(template_name="basic").from_notebook_node(nb)[0], "html.parser")
        self.links = [a["href"] for a in self.soup.select("a[href]:not(.anchor-link)")]
        self.pictures = [i["src"] for i in self.soup.select("img[src]") if not i["src"].startswith("data:")]
        self.anchors = {tag["id"] for tag in self.soup.select("[id]")} | {self.slug(h) for h in self.soup.select("h1,h2,h3,h4,h5,h6")}

    @staticmethod
    def slug(heading) -> str:
        "The anchor that Quarto and GitHub give a heading, or the one it states as {#name}."
        text = heading.get_text().removesuffix("¶").strip()
        if stated := re.search(r"\{#([\w-]+)", text): return stated[1]
        return re.sub(r"^[^a-z]+", "", re.sub(r"[^\w\s.-]", "", text.lower()).replace(" ", "-"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, dict[str, Page]]:
    "The folder of processed notebooks, made in a copy of the project, and its pages."
    folder = tmp_path_factory.mktemp("site")
    for name in "nbs", "pixnerd": shutil.copytree(ROOT/name, folder/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in "settings.ini", "_quarto.yml": shutil.copy(ROOT/name, folder)
    code = "from nbdev.quarto import refresh_quarto_yml; from nbdev.serve import proc_nbs\n" \
           "if __name__ == '__main__': refresh_quarto_yml(); proc_nbs(n_workers=0, force=True)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True)
    if done.returncode: pytest.fail("\n".join(re.findall(r"^\w+Error: .*|^Exception: (?:.*\n){1,4}", done.stderr, re.M)) or done.stderr, pytrace=False)
    return folder/"_proc", {name: Page(folder/"_proc"/name) for name in PATHS}


def test_site_settings_are_current(site):
    assert (site[0]/"nbdev.yml").read_text(encoding="utf-8") == (NBS/"nbdev.yml").read_text(encoding="utf-8")
    assert (site[0]/"_quarto.yml").exists() and (site[0]/"styles.css").exists()


@pytest.mark.parametrize("name", PATHS)
def test_page(site, name):
    folder, pages = site
    page = pages[name]
    assert page.front.get("title") and page.front.get("description")
    website = yaml.safe_load((NBS/"nbdev.yml").read_text(encoding="utf-8"))["website"]
    home, code = website["site-url"] + "/", f"{website['repo-url']}/blob/{website['repo-branch']}/"
    published = {p.front["output-file"]: n for n, p in pages.items()}      # neural_field.html → 03_neural_field.ipynb
    broken = []
    for link in page.links + page.pictures:
        if link.startswith(code):                                          # a file of this project, on GitHub
            if not (ROOT/urlsplit(link[len(code):]).path).exists(): broken.append(link)
            continue
        if link.startswith(home): link = link[len(home):]
        elif re.match(r"[a-z]+:", link): continue
        path, anchor = unquote(urlsplit(link).path), urlsplit(link).fragment
        target = published.get(path) or (urljoin(name, path) if path else name)
        if not (folder/target).is_file(): broken.append(link)
        elif anchor and target in pages and anchor not in pages[target].anchors: broken.append(f"{link}: no such heading")
    assert not broken, broken


def test_readme_links_resolve():
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    targets = [urlsplit(t) for t in re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)]
    missing = [t.path for t in targets if not t.scheme and t.path and not (ROOT/unquote(t.path)).exists()]
    assert not missing, missing

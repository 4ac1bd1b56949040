"What a reader meets: the notebooks as stored, the pages nbdev makes of them, the links between them, and the README."

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("nbdev", reason="the notebook tools are not installed (pip install -e '.[dev]')")
import nbformat
import notebooks
import pages
import yaml
from notebooks import NBS, ROOT, WIDGET
from pages import Page

PATHS = {p.relative_to(NBS).as_posix(): p for p in notebooks.notebooks()}


@pytest.mark.parametrize("name", PATHS)
def test_notebook_as_stored(name):
    assert not (faults := notebooks.faults(notebooks.read(PATHS[name]))), "\n".join(faults)
    assert (kb := PATHS[name].stat().st_size//1024) <= notebooks.MAX_KB, f"{kb} KB"


def test_package_is_what_the_notebooks_export(): assert notebooks.export_check()


def test_readme_is_current(): assert pages.readme(check=True)


def files(contents):
    "The pages a sidebar names, in order."
    for entry in contents:
        if isinstance(entry, str): yield entry
        elif "href" in entry: yield entry["href"]
        else: yield from files(entry["contents"])


def test_sidebar_lists_every_notebook_once():
    site = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
    listed = list(files(site["website"]["sidebar"]["contents"]))
    assert sorted(listed) == sorted(PATHS), "the sidebar of _quarto.yml against nbs/"
    assert listed[0] == "index.ipynb"
    for section in site["website"]["sidebar"]["contents"][1:]:
        numbered = [name for name in files(section["contents"]) if name[0].isdigit()]
        assert numbered == sorted(numbered), f"{section['section']}: in another order than they build on each other"


def test_pages_outside_the_house_export_nothing():
    for name, path in PATHS.items():
        if name[0].isdigit(): continue
        words = ("export", "exports", "exporti", "default_exp")
        exporting = [i for i, cell in enumerate(notebooks.read(path)["cells"])
                     if any(notebooks.directive(cell, word) is not None for word in words)]
        assert not exporting, f"{name}, cells {exporting}"


@pytest.mark.parametrize("name", [p.name for p in sorted((ROOT/"pixnerd").glob("*.py")) if p.stem[0] != "_"])
def test_names_that_are_exported(name): assert not pages.forbidden_names(ROOT/"pixnerd"/name)


# --- the pages ---

@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, dict[str, Page]]:
    "The folder of processed notebooks, made in a copy of the project, and its pages."
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in "nbs", "pixnerd": shutil.copytree(ROOT/name, folder/name, ignore=ignored)
    for name in "settings.ini", "_quarto.yml": shutil.copy(ROOT/name, folder)
    code = "from nbdev.quarto import refresh_quarto_yml; from nbdev.serve import proc_nbs\n" \
           "if __name__ == '__main__': refresh_quarto_yml(); proc_nbs(n_workers=0, force=True)"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        told = re.findall(r"^\w+Error: .*|^Exception: (?:.*\n){1,4}", done.stderr, re.M)
        pytest.fail("\n".join(told) or done.stderr, pytrace=False)
    pages.finish(folder/"_proc")
    return folder/"_proc", {name: Page(folder/"_proc"/name) for name in PATHS}


def test_site_settings_are_current(site):
    assert (site[0]/"nbdev.yml").read_text(encoding="utf-8") == (NBS/"nbdev.yml").read_text(encoding="utf-8")
    assert (site[0]/"_quarto.yml").exists() and (site[0]/"styles.css").exists()


@pytest.mark.parametrize("name", PATHS)
def test_page(site, name):
    folder, made = site
    assert not (found := pages.faults(name, made, folder)), "\n".join(found)


def test_no_two_pages_are_published_under_one_name(site):
    names = [f"{Path(name).parent}/{page.front['output-file']}" for name, page in site[1].items()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PATHS)
def test_open_in_colab(site, name):
    assert not (found := pages.colab_faults(notebooks.read(PATHS[name]))), "\n".join(found)
    links = [link["href"] for link in site[1][name].front.get("other-links", [])]
    address = f"https://colab.research.google.com/github/pixnerd/pixnerd/blob/main/nbs/{name}"
    assert links == ([address] if pages.on_colab(notebooks.read(PATHS[name])) else [])


# --- would these checks notice? each fault is planted in a page, and must be named ---

def plant(cells):
    "Add cells to the end of a page."
    def change(nb): nb.cells += cells
    return change


def text(source): return plant([nbformat.v4.new_markdown_cell(source)])


def output(data, source="draw()", kind="display_data", **rest):
    made = nbformat.v4.new_output(kind, **({"data": data} if data else {}), **rest)
    return plant([nbformat.v4.new_code_cell(source, outputs=[made])])


def without(key):
    "Take a line out of a page's head."
    def change(nb): nb.cells[0].source = re.sub(rf"^{key}:.*\n(  .*\n)*", "", nb.cells[0].source, flags=re.M)
    return change


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SIGNATURE = "```python\ndef draw(\n    board:__main__.Board, # see {}\n):\n```"
PLANTED = {
    "a dead link": (text("[away](99_nowhere.ipynb)"), "dead link: 99_nowhere.ipynb"),
    "a dead anchor": (text("[there](01_patches.ipynb#no-such-place)"), "#no-such-place: no such heading"),
    "a link to a file that is not in the repository": (
        text("[code](https://github.com/pixnerd/pixnerd/blob/main/tools/nothing.py)"), "dead link: https://github.com"),
    "a missing picture": (text("![a cat](images/cat.png)"), "dead link: images/cat.png"),
    "a picture without alt text": (text("![](images/readme/2.png)"), "picture without alt text: images/readme/2.png"),
    "a drawn picture without alt text": (output({"image/png": PNG, "text/plain": "x"}), "picture without alt text"),
    "an oversized page": (
        output({"image/png": PNG + "A" * 2_100_000, "text/plain": "x"}, '#| fig-alt: "noise"\ndraw()'), "too heavy: "),
    "a live widget without a twin": (
        output({WIDGET: {"model_id": "1"}, "text/plain": "interactive(children=(IntSlider(),))"}),
        "a live output without a static twin"),
    "a bare plotly figure": (
        output({"application/vnd.plotly.v1+json": {"data": []}}), "a live output without a static twin"),
    "a figure that needs the network": (
        output({"text/html": "<script src='https://cdn.plot.ly/plotly.min.js'></script>"}), "not self-contained"),
    "a stored error": (output(None, kind="error", ename="ValueError", evalue="no", traceback=[]), "a stored error, V"),
    "a link within code": (
        output({"text/markdown": SIGNATURE.format("[`Picture`](https://pixnerd.github.io/pixnerd/show.html#picture)")}),
        "a raw link, or `__main__.`, within code"),
    "a type of the running notebook": (output({"text/markdown": SIGNATURE.format("there")}), "`__main__.`, within"),
    "a word that became a link": (
        text("drawn [`digits`](https://pixnerd.github.io/pixnerd/data.html#digits)"), "a common word is a link"),
    "a misspelt name": (text("Trained with Pytorch on Cifar10 by PixNeRD."), "'Cifar10' (write CIFAR-10)"),
    "no title": (without("title"), "no title"),
    "no description": (without("description"), "no description"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_checks_name_a_planted_fault(site, tmp_path, fault):
    folder, made = site
    name, (change, told) = "00_show.ipynb", PLANTED[fault]
    nb = nbformat.read(folder/name, as_version=4)
    change(nb)
    (tmp_path/"images").symlink_to(folder/"images")
    nbformat.write(nb, tmp_path/name)
    found = pages.faults(name, made | {name: Page(tmp_path/name)}, folder)
    assert any(told in line for line in found), found


def test_a_head_that_quarto_would_show_as_text_is_named(site, tmp_path):
    folder, made = site
    name = "00_show.ipynb"
    nb = json.loads((folder/name).read_text(encoding="utf-8"))
    nb["cells"][0]["source"] = "".join(nb["cells"][0]["source"])
    (tmp_path/"images").symlink_to(folder/"images")
    (tmp_path/name).write_text(json.dumps(nb), encoding="utf-8")
    found = pages.faults(name, made | {name: Page(tmp_path/name)}, folder)
    assert any("stored as one string" in line for line in found), found


def test_what_nbdev_puts_into_pages_is_mended():
    link = "[`Picture`](https://pixnerd.github.io/pixnerd/show.html#picture)"
    assert pages.mended_code(SIGNATURE.format(link)) == "```python\ndef draw(\n    board:Board, # see Picture\n):\n```"
    assert pages.mended_code(f"See {link}.") == f"See {link}."
    drawn = "[`digits`](https://pixnerd.github.io/pixnerd/digits.html#digits)"
    assert pages.mended_prose(f"{drawn} by {link}", {}) == f"`digits` by {link}"
    method = "[`Picture.save`](https://pixnerd.github.io/pixnerd/show.html#{})"
    assert pages.mended_prose(method.format("picture.save"), {"show.html": {"picture"}}) == method.format("picture")
    assert pages.mended_prose(method.format("picture.save"), {"show.html": {"film"}}) == "`Picture.save`"


BAD_OPTIONS = {
    "an unquoted colon": ("#| fig-alt: left: a digit\ndraw()", "line 1: `#| fig-alt: left: a digit` is not YAML"),
    "a quote that does not close": ("#| echo: false\n#| fig-alt: \"a digit\ndraw()", "line 2: "),
    "a bare per cent sign": ("#| fig-alt: \"intervals of 95 % each\"\ndraw()", "line 1: "),
    "a line in the wrong place": ("model = 1\n#| fig-alt: \"a digit\"\ndraw()", "line 2: "),
}


@pytest.mark.parametrize("fault", BAD_OPTIONS)
def test_a_notebook_that_would_break_the_site_is_not_stored(tmp_path, monkeypatch, capsys, fault):
    source, told = BAD_OPTIONS[fault]
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n> With a fault."), nbformat.v4.new_code_cell(source, id="bad")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    path = tmp_path/"page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    before = path.read_bytes()
    monkeypatch.setattr(notebooks, "NBS", tmp_path)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    assert not notebooks.execute(["page"]) and path.read_bytes() == before
    assert f"cell 1 (bad), {told}" in capsys.readouterr().out


def test_imports_among_other_code_are_named():
    sources = ("#| default_exp page", "import json\nprint(json)", "import json", "#| hide\nimport json\nprint(json)")
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n> With a fault."), *map(nbformat.v4.new_code_cell, sources)]
    found = notebooks.faults({"cells": cells, "metadata": {"kernelspec": {}}})
    assert len(found) == 1 and found[0].startswith("cell 2 ") and "imports, and does something else" in found[0]


def test_options_that_are_well_said_are_no_fault():
    good = "#| export\n#| echo: false\n#| fig-alt: \"left: a digit; right: 100%25 of it\"\n#| cuda\n\nx = 1\n# | none"
    assert not notebooks.directive_faults({"cell_type": "code", "source": good})


def test_spelling_leaves_code_and_right_names_alone():
    right = "PixNerd's `imgs`, $img$, [GitHub](https://github.com/x/utils), `pixnerd`, CIFAR-10, the field's blocks"
    assert not pages.misspelt(pages.prose(f"{right}\n```\nimport utils, cfg\n```\n"))
    assert len(pages.misspelt(pages.prose("A nerf block of the utils, in color, on Github."))) == 4


def test_a_notebook_that_colab_could_not_run_is_named():
    sources = (pages.COLAB_CELL, "import tensorboard", "open('../recipes/digits.yaml')", "from pixnerd.flow import mix")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    found = pages.colab_faults(nbformat.v4.new_notebook(cells=cells))
    assert found == ["cell 1: imports tensorboard, which Colab would not have",
                     "cell 2: reads a file of the checkout, which Colab has not"]


def test_readme_links_resolve():
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    targets = [urlsplit(t) for t in re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)]
    missing = [t.path for t in targets if not t.scheme and t.path and not (ROOT/unquote(t.path)).exists()]
    assert not missing, missing

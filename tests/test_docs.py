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
import page as reader
import pages
import yaml
from notebooks import NBS, ROOT, WIDGET
from page import Page

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
        if section["section"] == "Look inside": numbered.remove("13_probes.ipynb")      # what is to be seen comes first
        assert numbered == sorted(numbered), f"{section['section']}: in another order than they build on each other"


def test_the_first_page_lists_the_notebooks_as_the_sidebar_does():
    page = "\n".join(cell.source for cell in notebooks.read(PATHS["index.ipynb"]).cells)
    rows = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (\[.*?) \|", page[page.index("## Read it"):], re.M))
    site = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
    sections = {section["section"]: list(files(section["contents"]))
                for section in site["website"]["sidebar"]["contents"][1:]}
    floors = [name for name, listed in sections.items() if any(page[0].isdigit() for page in listed)]
    assert [name for name in rows if name in floors] == floors
    for name in floors:
        rooms = [page for page in sections[name] if not page.startswith("studies/")]
        assert re.findall(r"\]\((.+?)\)", rows[name]) == rooms, name


def test_the_floors_in_contributing_are_those_of_the_notebooks():
    text = (ROOT/"CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| floor | rooms"):].partition("\n\n")[0]
    told = {}
    for floors, rooms in re.findall(r"^\| ([\d, ]+) \| (.+?) \|", table, re.M):
        told[tuple(floors.split(", "))] = sorted(re.split(r", | · ", rooms.lower()))
    built = {floors: sorted(name[:-6].partition("_")[2].replace("_", " ") for name in PATHS if name[:2] in floors)
             for floors in told}
    assert told == built
    assert {name[:2] for name in PATHS if name[0].isdigit()} == {floor for floors in told for floor in floors}


def test_nothing_of_the_site_is_fetched_from_elsewhere():
    html = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]
    assert html["html-math-method"] == "mathml", "others fetch their scripts"
    assert all("theme.scss" in theme for theme in html["theme"].values())
    theme = (NBS/"theme.scss").read_text(encoding="utf-8")
    assert "$web-font-path: false;" in theme, "Quarto's themes fetch fonts"
    assert "://" not in theme + (NBS/"styles.css").read_text(encoding="utf-8")


def test_pages_outside_the_house_export_nothing():
    for name, path in PATHS.items():
        if name[0].isdigit(): continue
        words = ("export", "exports", "exporti", "default_exp")
        exporting = [i for i, cell in enumerate(notebooks.read(path)["cells"])
                     if any(notebooks.directive(cell, word) is not None for word in words)]
        assert not exporting, f"{name}, cells {exporting}"


@pytest.mark.parametrize("name", [p.name for p in sorted((ROOT/"pixnerd").glob("*.py")) if p.stem[0] != "_"])
def test_names_that_are_exported(name): assert not reader.forbidden_names(ROOT/"pixnerd"/name)


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
    assert not (found := reader.faults(name, made, folder)), "\n".join(found)


def test_no_two_pages_are_published_under_one_name(site):
    names = [f"{Path(name).parent}/{page.front['output-file']}" for name, page in site[1].items()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PATHS)
def test_open_in_colab(site, name):
    assert not (found := reader.colab_faults(notebooks.read(PATHS[name]))), "\n".join(found)
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
        text("drawn [`digits`](09_digits.ipynb#digits)"), "a common word is a link"),
    "a misspelt name": (text("Trained with Pytorch on Cifar10 by PixNeRD."), "'Cifar10' (write CIFAR-10)"),
    "a picture that a social card would carry": (
        output({"text/html": f"<img src=\"data:image/png;base64,{PNG}\" alt=\"x\">"}), "a picture within the page"),
    "states of widgets": (
        lambda nb: nb.metadata.update(widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}}),
        "states of widgets"),
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
    found = reader.faults(name, made | {name: Page(tmp_path/name)}, folder)
    assert any(told in line for line in found), found


def test_a_head_that_quarto_would_show_as_text_is_named(site, tmp_path):
    folder, made = site
    name = "00_show.ipynb"
    nb = json.loads((folder/name).read_text(encoding="utf-8"))
    nb["cells"][0]["source"] = "".join(nb["cells"][0]["source"])
    (tmp_path/"images").symlink_to(folder/"images")
    (tmp_path/name).write_text(json.dumps(nb), encoding="utf-8")
    found = reader.faults(name, made | {name: Page(tmp_path/name)}, folder)
    assert any("stored as one string" in line for line in found), found


# --- what the site makes of a page ---

def code(source, name, *outputs): return nbformat.v4.new_code_cell(source, id=name, outputs=list(outputs))


def test_definitions_stand_where_the_notebook_has_them_and_their_arguments_at_the_end():
    def prose(name): return nbformat.v4.new_markdown_cell(name, id=name)
    notebook = nbformat.v4.new_notebook(cells=[
        prose("title"), code("#| export\nimport math", "imports"), prose("path"),
        code("#| export\ndef mix(): pass", "mix"), code("#| hide\nmix()", "hidden"), code("mix()", "call"),
        prose("next")])
    api = code("#| echo: false\nshow_doc(mix)", "api")
    head = nbformat.v4.new_raw_cell("---\ntitle: x\n---", id="head")
    page = nbformat.v4.new_notebook(cells=[head, prose("path"), api, code("mix()", "call"), prose("next")])
    pages.arrange(page, notebook)
    assert [cell.id for cell in page.cells] == ["head", "path", "mix", "call", "next", "api", "api"]
    assert page.cells[-2].source == "## API" and page.cells[2].source == "def mix(): pass"


FOLDED = {
    "a long definition": ("#| export\ndef mix():\n" + "    x = 1\n" * 20, "mix"),
    "a definition of the room's own": ("#| export\ndef _mix(): pass\n_most = 3\nregister(_mix)", "_mix, _most"),
    "a test": ("x = 1\ny = 2\nz = 3\nwith pytest.raises(ValueError):\n    mix(x, y, z)", "Test"),
    "a command, which is shown itself": ('shell("pixnerd-train --steps 2", room)', "From a notebook"),
    "code of a picture": ("#| fig-alt: \"a line\"\n" + "plot(x)\n" * 12, "Code of the picture"),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_code_that_is_not_the_point_is_folded(kind):
    source, told = FOLDED[kind]
    cell = code(source, "cell")
    shown = pages.definition(cell).source if "export" in source else pages.told(cell)
    assert shown.startswith(f"#| code-fold: true\n#| code-summary: \"{told}\"\n")
    assert not notebooks.directive_faults({"cell_type": "code", "source": shown})


def test_code_that_is_the_point_is_not_folded():
    for source in ("x = mix(1)", "assert mix(1) == 2", "#| echo: false\n" + "plot(x)\n" * 12):
        assert pages.told(code(source, "cell")) == source
    said = nbformat.v4.new_output("stream", text="2")
    assert "code-fold" not in pages.told(code("assert mix(1) == 2\n" * 9, "cell", said))


def test_a_picture_has_a_caption():
    drawn = nbformat.v4.new_output("display_data", {"image/png": PNG})
    told = pages.told(code('#| fig-alt: "steps of x_1: a *line*"\nplot(x)', "cell", drawn))
    assert yaml.safe_load(told.splitlines()[0][2:])["fig-cap"] == r"Steps of x\_1: a \*line\*"


def test_a_command_is_a_block_that_can_be_copied():
    said = nbformat.v4.new_output("stream", text="before\n$ pixnerd-train --steps 2\ntrained\n$ pixnerd-sample\n")
    parts = [part.get("text") or part.data["text/markdown"] for part in pages.commands_apart(said)]
    assert parts == ["before\n", "```bash\npixnerd-train --steps 2\n```", "trained\n", "```bash\npixnerd-sample\n```"]
    other = nbformat.v4.new_output("stream", text="costs 3 $ a day\n")
    assert pages.commands_apart(other) == [other]


def test_pictures_in_html_become_files():
    kept = {}
    def keep(kind, raw):
        kept[kind] = raw
        return "a.png"
    html = pages.pictures_apart(f'<img src="data:image/png;base64,{PNG}" alt="x">', keep)
    assert html == '<img src="a.png" alt="x">' and kept["png"][1:4] == b"PNG"


def test_the_parts_of_a_long_formula_stand_on_lines_of_their_own():
    long = "x" * 50
    assert pages.formulas_apart(rf"so $${long}, \qquad {long}$$ and") == f"so $${long},$$\n\n$${long}$$ and"
    in_rows = rf"$$\begin{{aligned}}{long} \qquad {long}\end{{aligned}}$$"
    for whole in (r"$$x, \qquad y$$", in_rows, f"$${long}{long}$$"):
        assert pages.formulas_apart(whole) == whole


def test_names_lead_to_their_signatures():
    places = {"Picture": "00_show.ipynb#picture", "mix": "#mix"}
    def linked(text): return pages.linked(text, places)
    assert linked("`Picture`, `mix()`") == "[`Picture`](00_show.ipynb#picture), [`mix()`](#mix)"
    assert linked("`Picture.save`") == "[`Picture.save`](00_show.ipynb#picture)"
    for text in ("`film`", "## `mix`", "[`mix`](x.ipynb)", "```python\n`mix`\n```", "`mix(x)`"):
        assert linked(text) == text


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
    sources = ("#| default_exp page", "import json\nprint(json)", "import json", "#| hide\nimport json\nx = json",
               "#| export\ndef f():\n    import json\n    return json.loads('1')", "#| eval: false\nimport json\nx = 1")
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n> With a fault."), *map(nbformat.v4.new_code_cell, sources)]
    found = notebooks.faults({"cells": cells, "metadata": {"kernelspec": {}}})
    assert [fault.partition(" (")[0] for fault in found] == ["cell 2", "cell 4"]
    assert all("imports, and does something else" in fault for fault in found)


def test_options_that_are_well_said_are_no_fault():
    good = "#| export\n#| echo: false\n#| fig-alt: \"left: a digit; right: 100%25 of it\"\n#| cuda\n\nx = 1\n# | none"
    assert not notebooks.directive_faults({"cell_type": "code", "source": good})


def test_spelling_leaves_code_and_right_names_alone():
    right = "PixNerd's `imgs`, $img$, [GitHub](https://github.com/x/utils), `pixnerd`, CIFAR-10, the field's blocks"
    assert not reader.misspelt(reader.prose(f"{right}\n```\nimport utils, cfg\n```\n"))
    assert len(reader.misspelt(reader.prose("A nerf block of the utils, in color, on Github."))) == 4


def test_a_notebook_that_colab_could_not_run_is_named():
    sources = (pages.COLAB_CELL, "import tensorboard", "open('../recipes/digits.yaml')", "from pixnerd.flow import mix")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    found = reader.colab_faults(nbformat.v4.new_notebook(cells=cells))
    assert found == ["cell 1: imports tensorboard, which Colab would not have",
                     "cell 2: reads a file of the checkout, which Colab has not"]


def test_readme_links_resolve():
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    targets = [urlsplit(t) for t in re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)]
    missing = [t.path for t in targets if not t.scheme and t.path and not (ROOT/unquote(t.path)).exists()]
    assert not missing, missing

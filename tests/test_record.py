"What the project says about itself: the status page, the log, the glossary, the citation, the how-to pages and the studies."

import ast
import importlib
import json
import re
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

pytest.importorskip("nbdev", reason="the notebook tools are not installed (pip install -e '.[dev]')")
import fresh
import notebooks
import pages
from notebooks import NBS, ROOT

CLAIMS = yaml.safe_load((NBS/"status.yml").read_text(encoding="utf-8"))


def cells(name, kind="code"): return [cell["source"] for cell in notebooks.read(NBS/name)["cells"] if cell["cell_type"] == kind]


def stored(name) -> str:
    "All text of a notebook's stored outputs."
    return "\n".join(output.get("text") or output.get("data", {}).get("text/markdown", "") for cell in notebooks.read(NBS/name)["cells"] for output in cell.get("outputs", []))


# --- what is measured and what is only built ---

@pytest.mark.parametrize("claim", CLAIMS, ids=[c["what"][:60] for c in CLAIMS])
def test_a_claim_stands_on_what_it_names(claim):
    wanted = {"measured": {"says", "from"}, "tested": {"tests"}, "built": {"needs"}}
    assert claim.keys() - {"what", "state", "notebook"} == wanted[claim["state"]]
    assert (NBS/claim["notebook"]).is_file()
    if claim["state"] == "measured":
        record = json.loads((ROOT/claim["from"]).read_text(encoding="utf-8"))
        assert record["made_by"], "a result says what made it"
        assert "{" in claim["says"] and not re.search(r"\d\.\d|\d\s*%|\d{2}", re.sub(r"{[^}]*}", "", claim["says"])), "numbers come from the file"
        assert claim["says"].format(**record) in stored("status.ipynb"), "the page is older than the results: make notebooks NB=status"
    for name in claim.get("tests", []):
        path, function = name.split("::")
        assert any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.parse((ROOT/path).read_text(encoding="utf-8")).body), name


def test_every_notebook_of_the_house_is_in_the_list_and_every_claim_on_the_page():
    numbered = {p.name for p in notebooks.notebooks() if p.parent == NBS and p.name[0].isdigit()}
    assert numbered <= {claim["notebook"] for claim in CLAIMS}, "a notebook without a claim in nbs/status.yml"
    page = stored("status.ipynb")
    assert not [claim["what"] for claim in CLAIMS if claim["what"] not in page], "make notebooks NB=status"


# --- the log ---

@pytest.fixture
def log(): return importlib.reload(importlib.import_module("log"))


def test_the_log_is_what_the_results_make(log): assert (ROOT/"LOG.md").read_text(encoding="utf-8") == log.text(), "run `python tools/log.py`"


def test_every_results_file_is_in_the_log(log):
    told = {path for _, _, _, files, _ in log.ENTRIES for path in files}
    files = [p for folder in ("nbs/results", "pixnerd/weights") for p in (ROOT/folder).rglob("*.json") if p.name != "config.json"]
    assert not [p.relative_to(ROOT).as_posix() for p in files if p.relative_to(ROOT).as_posix() not in told], "an experiment without an entry in tools/log.py"
    assert all((ROOT/path).is_file() for path in told)


def test_entries_are_dated_newest_first(log):
    dates = [date for date, *_ in log.ENTRIES]
    assert dates == sorted(dates, reverse=True) and all(re.fullmatch(r"20\d\d-\d\d-\d\d", date) for date in dates)
    for link in re.findall(r"\]\(([^)#]+)", (ROOT/"LOG.md").read_text(encoding="utf-8")): assert (ROOT/link).exists(), link


@pytest.mark.parametrize("path, change, told", [
    ("nbs/results/alignment.json", lambda r: [mark.update(accuracy=.5) for row in r["rows"] for mark in row["marks"]], "holds zero"),
    ("nbs/results/heads.json", lambda r: [mark.update(loss=.5) for row in r["rows"] for mark in row["marks"]], "patch 16"),
    ("nbs/results/shape.json", lambda r: [mark.update(loss=.5 + .01 * row["seed"]) for row in r["rows"] for mark in row["marks"]], None),
    ("nbs/results/samplers.json", lambda r: [row.update({"recall-digits": .5 + .1 * row["guidance_scale"]}) for row in r["rows"]], None),
    ("pixnerd/weights/digits/metrics.json", lambda r: r.update(accuracy=.5), None)], ids=["alignment", "heads", "shape", "samplers", "digits"])
def test_a_verdict_does_not_outlive_its_results(log, monkeypatch, path, change, told):
    record = json.loads((ROOT/path).read_text(encoding="utf-8"))
    change(record)
    real = log.results
    monkeypatch.setattr(log, "results", lambda name: record if name == path else real(name))
    with pytest.raises(AssertionError, match=told): log.text()


# --- words, citation ---

WORDS = ["patch", "token", "width", "head", "block", "field", "encoding", "velocity", "preview", "guidance scale", "guidance interval", "time shift", "steps", "order", "preset", "checkpoint"]    # DESIGN.md's


def test_the_glossary_tells_every_word_once_and_where_it_is_made():
    lines = [line for line in "\n".join(cells("glossary.ipynb", "markdown")).splitlines() if line.startswith("| ") and "](" in line]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    words = [row[0] for row in rows]
    assert len(words) == len(set(words)) and not set(WORDS) - set(words)
    for word, _, meaning, where in rows:
        notebook = re.search(r"\]\(([\w.]+)", where)[1]
        assert meaning and word.split()[-1].rstrip("s") in "\n".join(cells(notebook, "markdown") + cells(notebook)).lower(), f"{notebook} does not speak of {word!r}"


def test_the_citation_is_the_papers_and_the_software_is_this_version():
    cited = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    assert (cited["cff-version"], str(cited["version"]), cited["license"], cited["repository-code"]) == ("1.2.0", settings["DEFAULT"]["version"], settings["DEFAULT"]["license"], settings["DEFAULT"]["git_url"])
    paper, bibtex = cited["preferred-citation"], "\n".join(cells("index.ipynb", "markdown"))
    assert f"{{{paper['title']}}}" in bibtex and f"{{{paper['year']}}}" in bibtex
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in bibtex
    assert "2507.23268" in paper["url"] and "arXiv:2507.23268" in bibtex


# --- how-to pages ---

def commands(name) -> list[list[str]]:
    "The package's commands in the shell blocks of a page, without the launcher before them."
    found = []
    for block in re.findall(r"```bash\n(.*?)```", "\n".join(cells(name, "markdown")), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.search(r"(?:\$\(which )?(pixnerd-(?:train|sample|evaluate))\)?\s(.*?)(?:\s#.*)?$", line): found.append([match[1], *match[2].split()])
    return found


PAGES = [p.relative_to(NBS).as_posix() for p in notebooks.notebooks() if p.parent.name == "howto"] + ["index.ipynb"]


@lru_cache
def help_of(command) -> str:
    return fresh.run(f"from pixnerd.cli import {command[8:]}_command as run; run()", "--help").stdout


@pytest.mark.parametrize("name", PAGES)
def test_commands_on_a_page_have_options_that_exist(name):
    for command, *options in commands(name):
        for option in [o for o in options if o.startswith("--")]: assert re.search(rf"{option}\b", help_of(command)), f"{name}: {command} has no {option}"
        for recipe in [o for o in options if o.startswith("recipes/")]: assert (ROOT/recipe).is_file(), recipe


# --- studies ---

HEADINGS = ("Question", "Setting", "Result", "Verdict", "What would change our mind")


def study_faults(nb: dict, name: str, folder: Path) -> list[str]:
    "What is missing from a study: its parts, its results file, and that its table comes from there."
    headings = [h for cell in nb["cells"] if cell["cell_type"] == "markdown" for h in re.findall(r"^## (.+?)\s*$", cell["source"], re.M)]
    found = [f"no section {h!r}" for h in HEADINGS if h not in headings]
    if [h for h in headings if h in HEADINGS] != [h for h in HEADINGS if h in headings]: found.append(f"sections must come in the order {', '.join(HEADINGS)}")
    source = "\n".join(cell["source"] for cell in nb["cells"] if cell["cell_type"] == "code")
    if f"results/{name}.json" not in source: found.append(f"reads no results/{name}.json")
    path = folder/f"{name}.json"
    if not path.is_file(): return found + [f"no {path.name} in nbs/results"]
    record = json.loads(path.read_text(encoding="utf-8"))
    found += [f"{path.name} says no {key}" for key in ("command", "seeds", "made_by", "rows") if not record.get(key)]
    if not any("image/png" in o.get("data", {}) for cell in nb["cells"] for o in cell.get("outputs", [])): found.append("no picture")
    result = re.split(r"^## ", "\n".join(cell["source"] for cell in nb["cells"] if cell["cell_type"] == "markdown"), flags=re.M)
    if any(re.search(r"^\|.*\d\.\d", part, re.M) for part in result if part.startswith(("Result", "Verdict"))): found.append("a table of typed numbers")
    return found


@pytest.mark.parametrize("path", sorted((NBS/"studies").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_study_has_its_parts_and_its_table_from_a_file(path):
    assert not (found := study_faults(notebooks.read(path), path.stem, NBS/"results")), "\n".join(found)


def test_the_check_of_studies_names_what_is_missing(tmp_path):
    markdown = lambda s: {"cell_type": "markdown", "source": s}
    code = {"cell_type": "code", "source": "json.loads(Path('../results/heads.json').read_text())", "outputs": [{"output_type": "display_data", "data": {"image/png": "x"}}]}
    whole = {"cells": [markdown("## Question"), markdown("## Setting"), markdown("## Result"), code, markdown("## Verdict"), markdown("## What would change our mind")]}
    (tmp_path/"heads.json").write_text(json.dumps({"command": "python tools/studies.py heads", "seeds": [0, 1, 2], "made_by": {"cpu": "x"}, "rows": [{}]}))
    assert not study_faults(whole, "heads", tmp_path)
    assert "no section 'Verdict'" in study_faults({"cells": [c for c in whole["cells"] if c["source"] != "## Verdict"]}, "heads", tmp_path)
    assert "reads no results/other.json" in study_faults(whole, "other", tmp_path) and "no other.json in nbs/results" in study_faults(whole, "other", tmp_path)
    assert "a table of typed numbers" in study_faults({"cells": [*whole["cells"], markdown("## Verdict\n| a |\n|---|\n| 0.25 |")]}, "heads", tmp_path)
    (tmp_path/"heads.json").write_text(json.dumps({"command": "x", "seeds": [0], "made_by": {}, "rows": [{}]}))
    assert "heads.json says no made_by" in study_faults(whole, "heads", tmp_path)

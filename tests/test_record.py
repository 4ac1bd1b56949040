"What the project says about itself: the status page, the log, the glossary, the citation, the how-tos and the studies."

import ast
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
from notebooks import NBS, ROOT

CLAIMS = yaml.safe_load((NBS/"status.yml").read_text(encoding="utf-8"))


def where(claim) -> list[str]:
    "The notebooks that explain a claim."
    return [claim["notebook"]] if isinstance(claim["notebook"], str) else claim["notebook"]


def cells(name, kind="code") -> list[str]:
    "The sources of a notebook's cells of one kind."
    return [cell["source"] for cell in notebooks.read(NBS/name)["cells"] if cell["cell_type"] == kind]


def stored(name) -> str:
    "All text of a notebook's stored outputs."
    outputs = [output for cell in notebooks.read(NBS/name)["cells"] for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/markdown", "") for output in outputs)


# --- what is measured and what is only built ---

@pytest.mark.parametrize("claim", CLAIMS, ids=[c["what"][:60] for c in CLAIMS])
def test_a_claim_stands_on_what_it_names(claim):
    in_a_study = where(claim)[0].startswith("studies/")       # it says it there, with intervals
    wanted = {"measured": {"from"} if in_a_study else {"says", "from"}, "tested": {"tests"}, "built": {"needs"}}
    assert claim.keys() - {"what", "state", "notebook"} == wanted[claim["state"]]
    assert all((NBS/name).is_file() for name in where(claim))
    if claim["state"] == "measured":
        record = json.loads((ROOT/claim["from"]).read_text(encoding="utf-8"))
        assert record["made_by"], "a result says what made it"
        says, page = claim.get("says", f"]({where(claim)[0]})"), stored("status.ipynb")
        assert in_a_study or "{" in says, "numbers come from the file"
        assert not re.search(r"\d\.\d|\d\s*%|\d{2}", re.sub(r"{[^}]*}", "", says)), "a typed number"
        assert says.format(**record) in page, "the page is older than the results: make notebooks NB=status"
    for name in claim.get("tests", []):
        path, function = name.split("::")
        tree = ast.parse((ROOT/path).read_text(encoding="utf-8"))
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], name


def test_every_notebook_of_the_house_is_in_the_list_and_every_claim_on_the_page():
    numbered = {p.name for p in notebooks.notebooks() if p.parent == NBS and p.name[0].isdigit()}
    assert numbered <= {name for claim in CLAIMS for name in where(claim)}, "a notebook without a claim in nbs/status.yml"
    page = stored("status.ipynb")
    assert not [claim["what"] for claim in CLAIMS if claim["what"] not in page], "make notebooks NB=status"


# --- the log ---

LOG = (ROOT/"LOG.md").read_text(encoding="utf-8")


def test_the_log_names_every_results_file_and_nothing_that_is_not_there():
    links = {link for link in re.findall(r"\]\(([^)#]+)", LOG) if not link.startswith("http")}
    assert not [link for link in links if not (ROOT/link).exists()]
    files = [*(ROOT/"nbs/results").rglob("*.json"), *(ROOT/"pixnerd/weights").rglob("*.json")]
    untold = {p.relative_to(ROOT).as_posix() for p in files if p.name != "config.json"} - links
    assert not untold, f"experiments without an entry in LOG.md: {untold}"


def test_entries_are_dated_newest_first():
    entries = re.findall(r"^## (.*)", LOG, re.M)
    dates = [entry.partition(" · ")[0] for entry in entries]
    assert dates == sorted(dates, reverse=True) and all(re.fullmatch(r"20\d\d-\d\d-\d\d", date) for date in dates)
    assert all(" · " in entry for entry in entries)


# --- words, citation ---

WORDS = [
    "patch", "token", "width", "head", "block", "field", "field width", "encoding", "velocity", "preview",
    "steps", "evaluations", "order", "guidance scale", "guidance interval", "time shift", "preset", "checkpoint", "EMA",
    "accuracy"]


def test_the_glossary_tells_every_word_once_and_where_it_is_made():
    lines = "\n".join(cells("glossary.ipynb", "markdown")).splitlines()
    lines = [line for line in lines if line.startswith("| ") and "](" in line]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    words = [row[0] for row in rows]
    assert len(words) == len(set(words)) and not set(WORDS) - set(words)
    for word, _, meaning, where in rows:
        notebook = re.search(r"\]\(([\w.]+)", where)[1]
        text = "\n".join(cells(notebook, "markdown") + cells(notebook)).lower()
        assert meaning and word.split()[-1].rstrip("s").lower() in text, f"{notebook} does not speak of {word!r}"


def test_the_citation_is_the_papers_and_the_software_is_this_version():
    cited = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    said = settings["DEFAULT"]
    assert cited["cff-version"] == "1.2.0" and str(cited["version"]) == said["version"]
    assert cited["license"] == said["license"] and cited["repository-code"] == said["git_url"]
    paper, bibtex = cited["preferred-citation"], "\n".join(cells("index.ipynb", "markdown"))
    assert f"{{{paper['title']}}}" in bibtex and f"{{{paper['year']}}}" in bibtex
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in bibtex
    assert "2507.23268" in paper["url"] and "arXiv:2507.23268" in bibtex


# --- how-to pages ---

COMMAND = re.compile(r"(?:\$\(which )?(pixnerd-(?:train|sample|evaluate))\)?\s(.*?)(?:\s#.*)?$")


def commands(name) -> list[list[str]]:
    "The package's commands in the shell blocks of a page, without the launcher before them."
    found = []
    for block in re.findall(r"```bash\n(.*?)```", "\n".join(cells(name, "markdown")), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if match := COMMAND.search(line): found.append([match[1], *match[2].split()])
    return found


PAGES = [p.relative_to(NBS).as_posix() for p in notebooks.notebooks() if p.parent.name == "howto"] + ["index.ipynb"]


@lru_cache
def help_of(command) -> str:
    "What a command says of its options."
    return fresh.run(f"from pixnerd.cli import {command[8:]}_command as run; run()", "--help").stdout


@pytest.mark.parametrize("name", PAGES)
def test_commands_on_a_page_have_options_that_exist(name):
    for command, *options in commands(name):
        for option in options:
            known = not option.startswith("--") or re.search(rf"{option}\b", help_of(command))
            assert known, f"{name}: {command} has no {option}"
            assert not option.startswith("recipes/") or (ROOT/option).is_file(), option


# --- studies ---

HEADINGS = ("Question", "Setting", "Result", "Verdict", "What would change our mind")


def study_faults(nb: dict, name: str, folder: Path) -> list[str]:
    "What is missing from a study: its parts, its results file, and that its table comes from there."
    def sources(kind): return "\n".join(cell["source"] for cell in nb["cells"] if cell["cell_type"] == kind)

    source, markdown = sources("code"), sources("markdown")
    headings = re.findall(r"^## (.+?)\s*$", markdown, re.M)
    found = [f"no section {h!r}" for h in HEADINGS if h not in headings]
    if [h for h in headings if h in HEADINGS] != [h for h in HEADINGS if h in headings]:
        found.append(f"sections must come in the order {', '.join(HEADINGS)}")
    if f"results/{name}.json" not in source: found.append(f"reads no results/{name}.json")
    path = folder/f"{name}.json"
    if not path.is_file(): return found + [f"no {path.name} in nbs/results"]
    record = json.loads(path.read_text(encoding="utf-8"))
    found += [f"{path.name} says no {key}" for key in ("command", "seeds", "made_by", "rows") if not record.get(key)]
    if not any("image/png" in output.get("data", {}) for cell in nb["cells"] for output in cell.get("outputs", [])):
        found.append("no picture")
    for part in re.split(r"^## ", markdown, flags=re.M):
        typed = re.search(r"^\|.*\d\.\d", part, re.M)
        if typed and part.startswith(("Result", "Verdict")): found.append("a table of typed numbers")
    return found


@pytest.mark.parametrize("path", sorted((NBS/"studies").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_study_has_its_parts_and_its_table_from_a_file(path):
    assert not (found := study_faults(notebooks.read(path), path.stem, NBS/"results")), "\n".join(found)


def test_the_check_of_studies_names_what_is_missing(tmp_path):
    def markdown(*sources): return [{"cell_type": "markdown", "source": source} for source in sources]

    code = {"cell_type": "code", "source": "json.loads(Path('../results/heads.json').read_text())"}
    code["outputs"] = [{"output_type": "display_data", "data": {"image/png": "x"}}]
    end = markdown("## Verdict", "## What would change our mind")
    whole = [*markdown("## Question", "## Setting", "## Result"), code, *end]
    record = {"command": "python tools/measure studies heads", "seeds": [0, 1], "made_by": {"cpu": "x"}, "rows": [{}]}

    def faults(cells=whole, name="heads"): return study_faults({"cells": cells}, name, tmp_path)

    (tmp_path/"heads.json").write_text(json.dumps(record))
    assert not faults()
    assert "no section 'Verdict'" in faults([cell for cell in whole if cell["source"] != "## Verdict"])
    assert {"reads no results/other.json", "no other.json in nbs/results"} <= set(faults(name="other"))
    assert "a table of typed numbers" in faults([*whole, *markdown("## Verdict\n| a |\n|---|\n| 0.25 |")])
    (tmp_path/"heads.json").write_text(json.dumps(record | {"made_by": {}}))
    assert "heads.json says no made_by" in faults()

"""A researcher with an idea and a how-to page, in a copy of the project: each page is followed to the letter.

Of a page `howto/add_*.ipynb` one section is followed, `## Make it part of the package`. Its steps are numbered; each
names a notebook (`nbs/08_samplers.ipynb`, good for the steps after it, too) and says one of

- after the cell that begins `X`, add the cell above that begins `Y`      (`#| export` on top, where the step says so)
- after the cell that begins `X`, add a cell:                             and a ```python block
- in the cell that begins `X`, replace `A` with `B`
- in the cell that begins `X`, after the line that begins `K`, add `L`    or add: and a ```python block
- at the end of the cell that begins `X`, add `L`                         or add: and a ```python block

"The cell of `x`" is the cell that begins with that name or with its definition, "the line of `K`" the line that begins
so, and "a cell with the function `y` above" the page's own. After the steps come ```bash blocks, run line by line, and
```text blocks, whose lines must stand in what was printed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import nbformat
import pytest

from notebooks import NBS, ROOT

SECTION = "## Make it part of the package"
PAGES = sorted(p.name for p in (NBS/"howto").glob("add_*.ipynb"))
PLACE = re.compile(r"(?:after|in|at the end of) the cell (?:that begins|of) `([^`]+)`", re.I)
ABOVE = re.compile(r"add (?:the cell above that begins|a cell with the function) `([^`]+)`")
LINE = re.compile(r"after the line (?:that begins|of) `([^`]+)`")
FENCED = re.compile(r"^([ \t]*)```(\w+)\n(.*?)^[ \t]*```[ \t]*$", re.M | re.S)


def one(found: list, what: str):
    "The only one; how many there are, otherwise."
    assert len(found) == 1, f"{len(found)} times: {what}"
    return found[0]


def body(cell) -> str:
    "A cell's source without its `#|` lines and the blank lines after them."
    return re.sub(r"\A(?:#\|.*\n?|\s*\n)*", "", cell.source)


def plain(step: str) -> str:
    "A step on one line, without bold print."
    return " ".join(step.split()).replace("**", "")


class Follower:
    "Somebody who does what a page says, in a copy of the project."

    def __init__(self, page: str, room: Path):
        self.room, self.page, self.touched = room, nbformat.read(NBS/"howto"/page, as_version=4), set()
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("nbs", "pixnerd", "tools"): shutil.copytree(ROOT/name, room/name, ignore=ignored)
        for name in ("settings.ini", "_quarto.yml"): shutil.copy(ROOT/name, room)
        self.bin = room/"bin"                               # the commands, as an installation of the copy has them
        self.bin.mkdir()
        for name, function in re.findall(r"(pixnerd-\w+)=pixnerd\.cli:(\w+)", (ROOT/"settings.ini").read_text()):
            (self.bin/name).write_text(f"#!{sys.executable}\nfrom pixnerd.cli import {function}\n{function}()\n")
            (self.bin/name).chmod(0o755)

    def section(self) -> str:
        "The part of the page that is followed."
        markdown = "\n\n".join(cell.source for cell in self.page.cells if cell.cell_type == "markdown")
        return one(re.findall(rf"^{SECTION}\s*\n(.*?)(?=^## |\Z)", markdown, re.M | re.S), SECTION)

    def notebook(self, name: str):
        "A notebook of the copy."
        return nbformat.read(self.room/name, as_version=4)

    def find(self, nb, start: str) -> int:
        "Where the cell is that begins so."
        starts = (start, f"def {start}(", f"class {start}(") if start.isidentifier() else start
        found = [i for i, cell in enumerate(nb.cells) if body(cell).startswith(starts)]
        return one(found, f"a cell that begins {start!r}")

    def edit(self, step: str, name: str) -> None:
        "Do one step to a notebook."
        nb, block = self.notebook(name), FENCED.search(step)
        text = plain(FENCED.sub("", step))
        added = dedent(block[3]).rstrip("\n") if block else None
        at = self.find(nb, PLACE.search(text)[1])
        cell = nb.cells[at]
        if above := ABOVE.search(text):
            source = self.page.cells[self.find(self.page, above[1])].source
            if "`#| export`" in text: source = f"#| export\n{source}"
            nb.cells.insert(at + 1, nbformat.v4.new_code_cell(source))
        elif "add a cell" in text: nb.cells.insert(at + 1, nbformat.v4.new_code_cell(added))
        elif swap := re.search(r"replace `([^`]+)` with `([^`]+)`", text):
            assert cell.source.count(swap[1]) == 1, f"{swap[1]!r} stands {cell.source.count(swap[1])} times in the cell"
            cell.source = cell.source.replace(swap[1], swap[2])
        else:
            if added is None: added = one(re.findall(r"add `([^`]+)`", text), f"what to add in {text!r}")
            lines = cell.source.split("\n")
            if line := LINE.search(text):
                found = [i for i, part in enumerate(lines) if part.lstrip().startswith(line[1])]
                place = one(found, f"a line that begins {line[1]!r}")
                lines.insert(place + 1, indent(added.strip(), re.match(r"\s*", lines[place])[0]))
            else:
                assert "at the end of" in text.lower(), f"not a step that can be followed: {text!r}"
                lines.append(added)
            cell.source = "\n".join(lines)
        nbformat.write(nb, self.room/name)

    def run(self, line: str) -> subprocess.CompletedProcess:
        "A line of a shell block, as it would be typed in the copy with its environment switched on."
        words = shlex.split(line, comments=True)
        if words[:2] == ["make", "export"]:
            words = [sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"]
        elif words[0] == "make":
            names = words[2].removeprefix("NB=").split()
            words = [sys.executable, "tools/notebooks.py", {"test": "test", "notebooks": "execute"}[words[1]], *names]
        elif words[0] == "python": words[0] = sys.executable
        else: assert re.fullmatch(r"pixnerd-\w+", words[0]), f"not a line that can be followed: {line}"
        here = {"PYTHONPATH": str(self.room), "PATH": f"{self.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        return subprocess.run(words, cwd=self.room, env=os.environ | here, capture_output=True, text=True)

    def follow(self) -> None:
        "The whole section: the steps, then the commands, then what they must have printed."
        section = self.section()
        steps, commands = re.split(r"^(?=```bash)", section, maxsplit=1, flags=re.M)
        name = None
        for step in re.split(r"^\d+\. ", steps, flags=re.M):
            name = next(iter(re.findall(r"`(nbs/[\w/]+\.ipynb)`", step)), name)
            if not PLACE.search(plain(step)): continue      # a step such as "open JupyterLab"
            assert name, f"no notebook is named: {step!r}"
            self.touched.add(name)
            self.edit(step, name)
        printed, failed = "", []
        for _, kind, text in FENCED.findall(commands):
            if kind == "bash":
                printed, failed = "", []
                for line in text.replace("\\\n", " ").splitlines():
                    if not line.strip() or line.lstrip().startswith("#"): continue
                    done = self.run(line)
                    printed += done.stdout + done.stderr
                    if done.returncode: failed.append(line)
                refused = "error:" in commands.partition(text)[2].partition("```bash")[0]
                assert refused or not failed, f"{failed}\n{printed[-3000:]}"
            elif kind == "text":
                missing = [line for line in text.splitlines() if line.strip() and line.strip() not in printed]
                assert not missing, f"not printed: {missing}\n{printed[-3000:]}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page, tmp_path):
    follower = Follower(page, tmp_path)
    follower.follow()
    assert len(follower.touched) == 1, f"more than one notebook to touch: {follower.touched}"


@pytest.mark.timeout(900)
def test_a_strangers_encoding_is_trained_judged_and_compared(tmp_path):
    follower = Follower("add_encoding.ipynb", tmp_path)
    follower.follow()

    def run(line):
        done = follower.run(line)
        assert done.returncode == 0, done.stderr
        return done.stdout

    judge = "--total 20 --steps 2 --guidance-scale 1 --reference digits --extractor digits --metrics fid"
    for encoding in "dct", "bumps":
        run(f"pixnerd-train --model encoding={encoding} --steps 2 --batch 8 --out runs/{encoding}")
        run(f"pixnerd-evaluate --model runs/{encoding} {judge} --out judged/{encoding}")
    compared = run("pixnerd-evaluate --compare judged/bumps/metrics.json judged/dct/metrics.json")
    assert re.search(r"encoding\s*\|\s*bumps\s*\|\s*dct", compared)


@pytest.mark.timeout(900)
def test_a_strangers_preset_is_trained(tmp_path):
    follower = Follower("add_preset.ipynb", tmp_path)
    follower.follow()
    name = re.search(r'"([\w/-]+)": _preset', follower.section())[1]
    done = follower.run(f"pixnerd-train --preset {name} --steps 2 --batch 8 --out runs/mine")
    assert done.returncode == 0, done.stderr


def test_there_is_a_page_for_each_of_the_five_changes():
    assert PAGES == [f"add_{what}.ipynb" for what in ("dataset", "encoding", "metric", "preset", "sampler")]

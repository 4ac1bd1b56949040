"""Run the notebooks, store their outputs, check them and what they export. `pages.py` makes the README and the site.

Outputs are committed, so that the notebooks can be read where nothing runs: on GitHub, on the site, in a diff.
`execute` therefore stores only what reads the same there, and `faults` says what would not.
"""

import argparse
import ast
import filecmp
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from configparser import ConfigParser
from multiprocessing import get_context
from pathlib import Path

import nbformat
import yaml
from execnb.nbio import nb2str

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/"nbs"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")         # as in the Makefile, before a kernel loads PyTorch
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
FLAGS = SETTINGS["DEFAULT"]["tst_flags"].split()            # cells so marked are left as they are
# What most notebooks begin with; not what brings Triton, whose import the notebook of its kernels prepares.
LIBRARIES = ["nbdev.test", "matplotlib.pyplot", "torch", "sklearn.datasets"]
MAX_KB = 600
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/|site-packages")
WIDGET = "application/vnd.jupyter.widget-view+json"
LIVE = (WIDGET, "application/vnd.plotly.v1+json", "application/javascript")
LIVE_TEXT = re.compile(r"\b(interactive|\w*Box|FigureWidget|Tab)\(children=|Unable to display output")
NO_ALT = r"<img (?![^>]*alt=\"[^\"])"
PICTURES = {"image/png": "png", "image/gif": "gif", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def notebooks(names=()) -> list[Path]:
    "Every notebook, or those whose names begin with one of `names` (`03`, `index`, `studies/heads`), in reading order."
    def begins(path, start):
        start = start.removeprefix("nbs/").removesuffix(".ipynb")
        return path.stem.startswith(start) or path.relative_to(NBS).as_posix().startswith(start)

    found = [p for p in NBS.rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(NBS).parts)]
    for name in names:
        if not any(begins(p, name) for p in found): raise SystemExit(f"no notebook in nbs/ begins with {name!r}")
    found = [p for p in found if not names or any(begins(p, name) for name in names)]
    return sorted(found, key=lambda p: (p.parent != NBS, p.stem != "index", p))


def read(path: Path) -> dict:
    "A notebook with its multi-line strings joined."
    return nbformat.read(path, as_version=4)


def directive(cell: dict, name: str) -> str | None:
    "What stands after `#| name` or `#| name:` in a code cell; None where the cell does not carry it."
    if cell["cell_type"] != "code": return None
    found = re.search(rf"^#\|[ \t]*{name}(?![\w-])[ \t]*:?[ \t]*(.*?)[ \t]*$", cell["source"], re.M)
    return found and found[1].strip("\"'")


def skipped(cell: dict) -> bool:
    "Whether a cell is for other hardware or another hour: not run here, its stored outputs kept."
    return any(directive(cell, flag) is not None for flag in FLAGS) or directive(cell, "eval") == "false"


def directive_faults(cell: dict) -> list[str]:
    "What Quarto would stumble over in a code cell's `#|` lines: not YAML, or not at the top, where it reads them."
    lines = cell["source"].splitlines()
    top = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#|")), len(lines))
    found = []
    for n, line in enumerate(lines):
        option = re.match(r"#\|\s*([\w-]+\s*:.*)", line)        # the others, such as `#| export`, are nbdev's own
        told = f"line {n + 1}: `{line}`"
        if n > top and line.startswith("#|"):
            found.append(f"{told} does not stand at the top of its cell, where alone it is read")
        elif n < top and option:
            try: value = next(iter(yaml.safe_load(option[1]).values()))
            except yaml.YAMLError as error:
                found.append(f"{told} is not YAML, {getattr(error, 'problem', error)}; put the text in double quotes")
            else:
                if re.search(r"%(?![0-9A-Fa-f]{2})", str(value)):
                    found.append(f"{told} holds a bare %, which Quarto takes for an address; write per cent")
    return found


def mixes_imports(cell: dict) -> bool:
    "Whether a cell imports, anywhere, and does something else: nbdev runs it when it makes the page, and warns."
    if directive(cell, "export") is not None or directive(cell, "eval") == "false": return False
    try: nodes = list(ast.walk(ast.parse(cell["source"])))
    except SyntaxError: return False                        # a magic, say
    return all(any(isinstance(node, kinds) for node in nodes)
               for kinds in ((ast.Import, ast.ImportFrom), (ast.Expr, ast.Assign)))


def faults(nb: dict) -> list[str]:
    "What a reader should not meet in a notebook as it is stored, one line each."
    found = []
    if not nb["cells"] or not re.fullmatch(r"# \S.*\n+> \S.*(\n+- \w+:.*)*\s*", nb["cells"][0]["source"]):
        found.append('cell 0: is not "# Title" and one sentence after ">", alone: all that makes the page\'s head')
    if "kernelspec" not in nb["metadata"]: found.append("no kernelspec: JupyterLab would ask for a kernel")
    exports = any(directive(cell, "default_exp") is not None for cell in nb["cells"])
    for i, cell in enumerate(nb["cells"]):
        told = []
        if MACHINE_PATH.search(cell["source"]): told.append("a path of one machine in the source")
        if cell["cell_type"] == "markdown" and re.search(rf"!\[\s*\]\(|{NO_ALT}", cell["source"]):
            told.append("a picture without alt text")
        if cell["cell_type"] == "code":
            told += directive_faults(cell)
            told += [fault for output in cell["outputs"] for fault in output_faults(cell, output)]
            if exports and mixes_imports(cell): told.append("imports, and does something else: split it")
        found += [f"cell {i} ({cell.get('id', '')}), {fault}" for fault in told]
    return found


def output_faults(cell: dict, output: dict) -> list[str]:
    "What a reader should not meet in one output."
    data, found = output.get("data", {}), []
    text = "".join(v for k, v in data.items() if k.startswith("text/")) + output.get("text", "")
    still = PICTURES.keys() & data.keys()
    told = output.get("metadata", {})
    described = directive(cell, "fig-alt") or told.get("alt") or any(told.get(kind, {}).get("alt") for kind in still)
    live = set(LIVE) & data.keys() or LIVE_TEXT.search(data.get("text/plain", ""))
    if output["output_type"] == "error": found.append(f"a stored error, {output['ename']}: {output['evalue']}")
    if output.get("name") == "stderr" and directive(cell, "allow-stderr") is None:
        found.append(f"stderr without `#| allow-stderr`: {text.strip().splitlines()[-1:]}")
    if MACHINE_PATH.search(re.sub(r"base64,[^\"')]*", "", text)): found.append("a path of one machine in the output")
    if WIDGET in data or live and not {*still, "text/html", "text/markdown"} & data.keys():
        found.append("a live output without a static twin: give it a still picture to store")
    if still and not described: found.append('a picture without alt text: add `#| fig-alt: "what it shows"`')
    if re.search(NO_ALT, text): found.append("a picture without alt text in its HTML")
    return found


def cleaned(nb: dict) -> dict:
    "The notebook as it is stored: still pictures for live widgets, and the rest as nbdev_clean leaves it."
    from nbdev.clean import _nbdev_clean
    nb = json.loads(nbformat.writes(nb))                    # split into lines again: one line of text, one line of diff
    nb["metadata"] = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if {*PICTURES, "text/html"} & data.keys(): data.pop(WIDGET, None)
    _nbdev_clean(nb)
    return nb


def write_whole(path: Path, text: str):
    "Write through a temporary name, so that nobody meets half a file."
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def run(path: Path) -> dict:
    "The notebook after running it top to bottom in a kernel of its own."
    from nbclient import NotebookClient
    nb = read(path)
    client = NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(path.parent)}},
                            extra_arguments=["--log-level=ERROR"],
                            record_timing=False, store_widget_state=False, coalesce_streams=True)
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)}):
        for i, cell in enumerate(nb.cells):
            if cell.cell_type == "code" and not skipped(cell): client.execute_cell(cell, i)
    return nb


def run_and_judge(path: Path) -> tuple[dict | None, list[str]]:
    "A notebook as it would be stored after a fresh run, and what speaks against storing it."
    from nbclient.exceptions import CellExecutionError
    wrong = [f"cell {i} ({cell['id']}), {fault}" for i, cell in enumerate(read(path)["cells"])
             if cell["cell_type"] == "code" for fault in directive_faults(cell)]
    if wrong: return None, wrong                            # no need to wait for a run
    def files(): return {*ROOT.glob("*"), *NBS.rglob("*")}
    before = files()
    try: new = cleaned(run(path))
    except CellExecutionError as error: return None, [re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()]
    wrong = faults(nbformat.reads(nb2str(new), as_version=4))
    left = [p.relative_to(ROOT) for p in files() - before if p.suffix != ".pyc" and p.name[0] not in "._"]
    wrong += [f"leaves {name} behind" for name in left]
    if (kb := len(nb2str(new).encode())//1024) > MAX_KB: wrong.append(f"{kb} KB, more than {MAX_KB}")
    return new, wrong


def report(path: Path, seconds: float, verdict: str = "", wrong=()) -> bool:
    "Print how a notebook fared; whether well."
    name = path.relative_to(NBS).with_suffix("").as_posix()
    print(f"  {name:24s} {seconds:4.0f} s{verdict and '  '}{verdict}", *wrong, sep="\n    ", flush=True)
    return not verdict


def execute(names, check=False) -> bool:
    "Run notebooks and store their outputs; with `check`, only say where a fresh run differs from what is stored."
    good = True
    for path in notebooks(names):
        start = time.time()
        new, wrong = run_and_judge(path)
        if check and not wrong:
            pairs = enumerate(zip(json.loads(path.read_text(encoding="utf-8"))["cells"], new["cells"]))
            wrong = [f"cell {i} ({b['id']}): another output than the stored one"
                     for i, (a, b) in pairs if a.get("outputs") != b.get("outputs")]
        elif not wrong: write_whole(path, nb2str(new))
        verdict = ("not as stored" if check else "not stored") if wrong else ""
        good &= report(path, time.time() - start, verdict, wrong)
    return good


def test_one(path: Path) -> tuple[bool, float]:
    "One notebook through nbdev_test's own runner."
    from nbdev.test import test_nb
    return test_nb(path, skip_flags=FLAGS, basepath=ROOT)


def test(names) -> bool:
    "What nbdev_test does, each notebook in a process forked from one that has loaded the libraries, with a line each."
    workers = min(2, os.cpu_count() or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str((os.cpu_count() or 1)//workers))
    context = get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(test_one, path): path for path in notebooks(names)}
        good = True
        for job in as_completed(jobs):
            ok, seconds = job.result()
            good &= report(jobs[job], seconds, "" if ok else "FAILED")
        return good


def export_check() -> bool:
    "Whether pixnerd/ is what the notebooks export: exported once more, over a copy."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in "nbs", "pixnerd": shutil.copytree(ROOT/name, copy/name)
        shutil.copy(ROOT/"settings.ini", copy)
        export = "from nbdev.doclinks import nbdev_export; nbdev_export()"
        subprocess.run([sys.executable, "-c", export], cwd=copy, check=True)
        names = [p.name for p in (copy/"pixnerd").glob("*.py")]
        _, stale, missing = filecmp.cmpfiles(copy/"pixnerd", ROOT/"pixnerd", names, shallow=False)
    for name in stale + missing: print(f"  pixnerd/{name}: not what its notebook exports; run `make export`")
    return not stale + missing


def run_command(about: str, *commands) -> bool:
    "Run the function that the command line names, with the names and `--check` that it takes; whether all is well."
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    choices = parser.add_subparsers(dest="command", required=True)
    for command in commands:
        sub = choices.add_parser(command.__name__.replace("_", "-"), help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        takes = inspect.signature(command).parameters
        if "names" in takes: sub.add_argument("names", nargs="*", help="how they begin, as 03 (default: all)")
        if "check" in takes: sub.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = vars(parser.parse_args())
    os.chdir(ROOT)                                          # where nbdev looks for settings.ini
    return args.pop("command")(**args)


if __name__ == "__main__": sys.exit(not run_command(__doc__, execute, test, export_check))

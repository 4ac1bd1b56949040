"""Run the notebooks, store their outputs, check them, and make of them the package, the README and the site.

Outputs are committed, so that the notebooks can be read where nothing runs: on GitHub, on the site, in a diff.
`execute` therefore stores only what reads the same there, and `faults` says what would not.
"""

import argparse
import filecmp
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from concurrent.futures import ProcessPoolExecutor, as_completed
from configparser import ConfigParser
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/"nbs"
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
FLAGS = SETTINGS["DEFAULT"]["tst_flags"].split()            # cells so marked are left as they are
LIBRARIES = ["nbdev.test", "matplotlib.pyplot", "torch", "sklearn.datasets"]  # what most notebooks begin with; not what brings Triton, whose import 04 prepares
MAX_KB = 600
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/|site-packages")
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURES = {"image/png": "png", "image/gif": "gif", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def notebooks(names=()) -> list[Path]:
    "Every notebook, or those whose names begin with one of `names` (`03`, `index`, `howto`, `studies/field`), in reading order."
    found = [p for p in NBS.rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(NBS).parts)]
    found.sort(key=lambda p: (p.parent != NBS, p.stem != "index", p))
    starts = [name.removeprefix("nbs/").removesuffix(".ipynb") for name in names]
    begins = lambda p, start: p.stem.startswith(start) or p.relative_to(NBS).as_posix().startswith(start)
    for start in starts:
        if not any(begins(p, start) for p in found): raise SystemExit(f"no notebook in nbs/ begins with {start!r}")
    return [p for p in found if not starts or any(begins(p, start) for start in starts)]


def read(path: Path) -> dict:
    "A notebook with its multi-line strings joined."
    import nbformat
    return nbformat.read(path, as_version=4)


def directive(cell: dict, name: str) -> str | None:
    "What stands after `#| name` or `#| name:` in a code cell; None where the cell does not carry it."
    if cell["cell_type"] != "code": return None
    found = re.search(rf"^#\|[ \t]*{name}(?![\w-])[ \t]*:?[ \t]*(.*?)[ \t]*$", cell["source"], re.M)
    return found and found[1].strip("\"'")


def skipped(cell: dict) -> bool:
    "Whether a cell is for other hardware or another hour: not run here, its stored outputs kept."
    return any(directive(cell, flag) is not None for flag in FLAGS) or directive(cell, "eval") == "false"


def faults(nb: dict) -> list[str]:
    "What a reader should not meet in a notebook as it is stored, one line each."
    first = nb["cells"][0]["source"] if nb["cells"] else ""
    found = []
    if not re.fullmatch(r"# \S.*\n+> \S.*(\n+- \w+:.*)*\s*", first):
        found.append('cell 0: is not "# Title" and one sentence after ">", alone (nbdev makes the page\'s head of that cell and drops the rest)')
    if "kernelspec" not in nb["metadata"]: found.append("no kernelspec: JupyterLab would ask for a kernel")
    for i, cell in enumerate(nb["cells"]):
        def fault(what): found.append(f"cell {i}: {what}")
        if MACHINE_PATH.search(cell["source"]): fault("a path of one machine in the source")
        if cell["cell_type"] == "markdown" and re.search(r"!\[\s*\]\(|<img (?![^>]*alt=\"[^\"])", cell["source"]): fault("a picture without alt text")
        for output in cell.get("outputs", []):
            data, kind = output.get("data", {}), output["output_type"]
            text = "".join(v for k, v in data.items() if k.startswith("text/")) + output.get("text", "")
            still = PICTURES.keys() & data.keys()
            if kind == "error": fault(f"a stored error, {output['ename']}: {output['evalue']}")
            if output.get("name") == "stderr" and directive(cell, "allow-stderr") is None:
                fault(f"stderr without `#| allow-stderr`: {text.strip().splitlines()[-1:]}")
            if MACHINE_PATH.search(re.sub(r"base64,[^\"')]*", "", text)): fault("a path of one machine in the output")
            if WIDGET in data: fault("a live widget, which no page can show: give it a still picture, and `make notebooks` stores only that")
            if still and not (directive(cell, "fig-alt") or output["metadata"].get("alt") or any(output["metadata"].get(k, {}).get("alt") for k in still)):
                fault("a picture without alt text: add `#| fig-alt: what it shows`")
            if "<img" in text and re.search(r"<img (?![^>]*alt=\"[^\"])", text): fault("a picture without alt text in its HTML")
    return found


def cleaned(nb: dict) -> dict:
    "The notebook as it is stored: still pictures for live widgets, and the rest as nbdev_clean leaves it."
    import nbformat
    from nbdev.clean import _nbdev_clean
    nb = json.loads(nbformat.writes(nb))                    # multi-line strings split again: one line of text, one line of diff
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
    client = NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(path.parent)}}, extra_arguments=["--log-level=ERROR"],
                            record_timing=False, store_widget_state=False, coalesce_streams=True)
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)}):
        for i, cell in enumerate(nb.cells):
            if cell.cell_type == "code" and not skipped(cell): client.execute_cell(cell, i)
    return nb


def execute(names, check=False) -> bool:
    "Run notebooks and store their outputs; with `check`, only say where a fresh run differs from what is stored."
    import nbformat
    from execnb.nbio import nb2str
    from nbclient.exceptions import CellExecutionError
    good = True
    for path in notebooks(names):
        start, before = time.time(), set(ROOT.glob("*")) | set(NBS.rglob("*"))
        try: nb = run(path)
        except CellExecutionError as error: new, wrong = None, [re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()]
        else:
            new = cleaned(nb)
            wrong = faults(nbformat.reads(nb2str(new), as_version=4))
            wrong += [f"leaves {p.relative_to(ROOT)} behind" for p in (set(ROOT.glob("*")) | set(NBS.rglob("*"))) - before if p.suffix != ".pyc" and p.name[0] not in "._"]
            if (kb := len(nb2str(new).encode())//1024) > MAX_KB: wrong.append(f"{kb} KB, more than {MAX_KB}")
        if check and not wrong:
            old = json.loads(path.read_text(encoding="utf-8"))
            wrong = [f"cell {i} ({b['id']}): another output than the stored one" for i, (a, b) in enumerate(zip(old["cells"], new["cells"])) if a.get("outputs") != b.get("outputs")]
        elif not wrong: write_whole(path, nb2str(new))
        verdict = "" if not wrong else "  not as stored" if check else "  not stored"
        print(f"  {path.relative_to(NBS).with_suffix('').as_posix():24s} {time.time()-start:4.0f} s{verdict}", *wrong, sep="\n    ", flush=True)
        good &= not wrong
    return good


def test_one(path: Path) -> tuple[bool, float]:
    "One notebook through nbdev_test's own runner."
    from nbdev.test import test_nb
    return test_nb(path, skip_flags=FLAGS, basepath=ROOT)


def test(names) -> bool:
    "What nbdev_test does, each notebook in a fresh process, forked from one that has loaded the libraries, and with a line when it is done."
    cores = os.cpu_count() or 1
    workers = min(2, cores)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores//workers)))
    context = get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(test_one, path): path for path in notebooks(names)}
        good = True
        for job in as_completed(jobs):
            ok, seconds = job.result()
            print(f"  {jobs[job].relative_to(NBS).with_suffix('').as_posix():24s} {seconds:4.0f} s{'' if ok else '  FAILED'}", flush=True)
            good &= ok
    return good


def fresh_export(folder: Path) -> Path:
    "What nbdev_export makes of the notebooks, in a copy of the project."
    for name in "settings.ini", "nbs": (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, folder/name)
    (folder/"pixnerd").mkdir()
    if (ROOT/"pixnerd/__init__.py").exists(): shutil.copy(ROOT/"pixnerd/__init__.py", folder/"pixnerd")
    subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=folder, check=True)
    return folder/"pixnerd"


def export_check() -> bool:
    "Whether pixnerd/ is what the notebooks export, no more and no less (nbdev_export itself never deletes)."
    with tempfile.TemporaryDirectory() as folder:
        made, kept = fresh_export(Path(folder)), ROOT/"pixnerd"
        names = {p.relative_to(top).as_posix() for top in (made, kept) for p in top.rglob("*.py")}
        wrong = []
        for name in sorted(names):
            if not (made/name).exists(): wrong.append(f"pixnerd/{name}: no notebook exports it; delete it")
            elif not (kept/name).exists() or not filecmp.cmp(made/name, kept/name, shallow=False): wrong.append(f"pixnerd/{name}: not what its notebook exports; run `make export`")
    for line in wrong: print(" ", line)
    return not wrong


def readme_parts() -> tuple[str, dict[str, bytes]]:
    "README.md and its pictures (by path from the root), from nbs/index.ipynb."
    from execnb.nbio import read_nb
    from nbdev.process import NBProcessor
    from nbdev.processors import clean_magics, filter_stream_, hide_, hide_line, populate_language, rm_export, strip_ansi
    nb = read_nb(NBS/"index.ipynb")
    alts = {cell.id: directive(cell, "fig-alt") for cell in nb.cells}
    NBProcessor(nb=nb, procs=[populate_language, strip_ansi, hide_line, filter_stream_, rm_export, clean_magics, hide_]).process()
    blocks, pictures = ["<!-- Made from nbs/index.ipynb by `make readme`: edit the notebook. -->"], {}

    def from_root(found):                                   # a link seen from nbs/ becomes one seen from the root
        target = found[2]
        return found[0] if re.match(r"[a-z]+:|#|/", target) else found[1] + posixpath.normpath(f"nbs/{target}")

    def picture(kind, raw):                                 # a stored picture becomes a file, and this its path
        name = f"nbs/images/readme/{len(pictures)+1}.{kind}"
        pictures[name] = raw
        return name

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            blocks.append(re.sub(r"(\]\(|(?:src|href)=\")([^)\"\s]+)", from_root, cell.source))
        elif cell.cell_type == "code":
            code = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
            if code and directive(cell, "echo") != "false": blocks.append(f"```python\n{code}\n```")
            for output in cell.outputs if directive(cell, "output") != "false" else []:
                data = output.get("data", {})
                kind = next((k for k in PICTURES if k in data), None)
                text = "".join(output.get("text") or data.get("text/markdown") or data.get("text/plain") or "").rstrip()
                html = "".join(data.get("text/html", ""))
                if kind:
                    raw = "".join(data[kind])
                    name = picture(PICTURES[kind], raw.encode() if kind == "image/svg+xml" else b64decode(raw))
                    blocks.append(f"![{alts[cell.id] or ''}]({name})")
                elif "<img" in html:
                    blocks.append(re.sub(r"data:image/(\w+);base64,([^\"]+)", lambda found: picture(found[1], b64decode(found[2])), html))
                elif text: blocks.append(text if "text/markdown" in data else f"```text\n{text}\n```")
    return "\n\n".join(block.strip() for block in blocks) + "\n", pictures


def readme(check=False) -> bool:
    "Write README.md and nbs/images/readme/; with `check`, only say whether they are current."
    text, pictures = readme_parts()
    folder = NBS/"images/readme"
    old = {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in folder.glob("*")} if folder.exists() else {}
    page = ROOT/"README.md"
    if check:
        good = page.exists() and page.read_text(encoding="utf-8") == text and old == pictures
        if not good: print("  README.md is not what nbs/index.ipynb makes; run `make readme`")
        return good
    for name in old.keys() - pictures.keys(): (ROOT/name).unlink()
    for name, raw in pictures.items():
        (ROOT/name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/name).write_bytes(raw)
    write_whole(page, text)
    return True


def docs() -> bool:
    "The site in _docs/. (nbdev_docs would also have Quarto rewrite README.md.)"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    from pages import finish
    refresh_quarto_yml()
    pages = proc_nbs(n_workers=0, force=True)
    finish(pages)
    subprocess.run(["quarto", "render", "--no-cache"], cwd=pages, check=True)
    shutil.rmtree("_docs", ignore_errors=True)
    shutil.move(pages/"_docs", "_docs")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in execute, test, export_check, readme, docs:
        sub = commands.add_parser(command.__name__.replace("_", "-"), help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if command in (execute, test): sub.add_argument("names", nargs="*", help="how their names begin, as 03, index or howto (default: all)")
        if command in (execute, readme): sub.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = vars(parser.parse_args())
    os.chdir(ROOT)                                          # where nbdev looks for settings.ini
    return 0 if args.pop("command")(**args) else 1


if __name__ == "__main__": sys.exit(main())

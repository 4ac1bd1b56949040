"""Make the README and the site of the notebooks.

nbdev processes the notebooks, `finish` gives them the form of the site, and Quarto renders them. What a reader should
not meet there, tests/page.py says.
"""

import ast
import json
import posixpath
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import yaml

from notebooks import NBS, PICTURES, ROOT, SETTINGS, directive, notebooks, read, run_command, write_whole

GIT = SETTINGS["DEFAULT"]["git_url"]
BRANCH = SETTINGS["DEFAULT"]["branch"]
COLAB = f"https://colab.research.google.com/github/{urlsplit(GIT).path.strip('/')}/blob/{BRANCH}/"

# The cell that lets a notebook run on Colab, where there is no checkout. A notebook that carries it gets the link.
COLAB_EXTRAS = "explore,evaluate"
COLAB_CELL = f"""#| hide
if "google.colab" in str(get_ipython()):
    package = "pixnerd[{COLAB_EXTRAS}] @ git+{GIT}"
    get_ipython().run_line_magic("pip", f"install -q '{{package}}'")"""

COMMON_WORDS = {"digits", "scenes", "images", "paint"}      # words that are also functions: not linked
# Scripts of other servers that Quarto adds to a page with any HTML output, and ours need none of.
UNUSED = re.compile(r"<script[^>]*(/(requirejs|jquery)@[^>]*>|>define\('jquery'.*?)</script>", re.S)
SHOWN_LINES = {"code": 14, "picture": 8, "test": 4}         # the longest that the site does not fold


# --- open in Colab ---

def on_colab(nb: dict) -> bool:
    "Whether a notebook brings what it needs to run on Colab."
    start = COLAB_CELL.partition(" in str")[0]
    return any(cell["cell_type"] == "code" and cell["source"].startswith(start) for cell in nb["cells"])


# --- the README ---

def pictures_apart(html: str, keep) -> str:
    "HTML whose pictures, where it brought them along, lie where `keep(kind, raw)` says."
    return re.sub(r"(?<=src=\")data:image/(\w+);base64,([^\"]+)",
                  lambda found: keep(found[1], b64decode(found[2])), html)


def readme_parts() -> tuple[str, dict[str, bytes]]:
    "README.md and its pictures (by path from the root), from nbs/index.ipynb."
    blocks, pictures = ["<!-- Made from nbs/index.ipynb by `make readme`: edit the notebook. -->"], {}

    def from_root(found):                                   # a link seen from nbs/ becomes one seen from the root
        start, target = found.groups()
        return found[0] if re.match(r"[a-z]+:|#|/", target) else start + posixpath.normpath(f"nbs/{target}")

    def picture(kind, raw):                                 # a stored picture becomes a file, and this its path
        name = f"nbs/images/readme/{len(pictures)+1}.{kind}"
        pictures[name] = raw
        return name

    def shown(output, alt):                                 # an output as Markdown
        data = output.get("data", {})
        for kind in PICTURES.keys() & data.keys():
            raw = data[kind].encode() if "svg" in kind else b64decode(data[kind])
            return f"![{alt}]({picture(PICTURES[kind], raw)})"
        if "<img" in (html := data.get("text/html", "")): return pictures_apart(html, picture)
        if "text/markdown" in data: return data["text/markdown"].rstrip()
        text = (output.get("text") or data.get("text/plain") or "").rstrip()
        return text and f"```text\n{text}\n```"

    for cell in read(NBS/"index.ipynb")["cells"]:
        if cell.cell_type == "markdown":
            blocks.append(re.sub(r"(\]\(|(?:src|href)=\")([^)\"\s]+)", from_root, cell.source))
        elif cell.cell_type == "code" and directive(cell, "hide") is None:
            code = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
            if code and directive(cell, "echo") != "false": blocks.append(f"```python\n{code}\n```")
            if directive(cell, "output") == "false": continue
            blocks += [shown(output, directive(cell, "fig-alt") or "") for output in cell.outputs]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n", pictures


def readme(check=False) -> bool:
    "Write README.md and nbs/images/readme/; with `check`, only say whether they are current."
    text, pictures = readme_parts()
    page, folder = ROOT/"README.md", NBS/"images"/"readme"
    old = {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in folder.glob("*")}
    if check:
        good = page.is_file() and page.read_text(encoding="utf-8") == text and old == pictures
        if not good: print("  README.md is not what nbs/index.ipynb makes; run `make readme`")
        return good
    folder.mkdir(parents=True, exist_ok=True)
    for name in old.keys() - pictures.keys(): (ROOT/name).unlink()
    for name, raw in pictures.items(): (ROOT/name).write_bytes(raw)
    write_whole(page, text)
    return True


# --- the site ---

def definition(cell: dict) -> dict | None:
    "An exported cell as the site shows it where the notebook has it; None for imports, and for what is not exported."
    if directive(cell, "export") is None: return None
    code = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M).strip()
    nodes = [node for node in ast.parse(code).body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    if not nodes: return None
    names = [getattr(node, "name", "") or ast.unparse(node).partition("=")[0].partition(":")[0].strip()
             for node in nodes if not isinstance(node, ast.Expr)]
    own = all(name.startswith("_") for name in names)
    if own or code.count("\n") > SHOWN_LINES["code"]: code = folded(code, ", ".join(names) or "Code")
    return nbformat.v4.new_code_cell(code, id=cell.id)


def folded(code: str, told: str) -> str:
    "Code that Quarto folds under the words `told`."
    return f"#| code-fold: true\n#| code-summary: {json.dumps(told, ensure_ascii=False)}\n{code}"


def arrange(nb: dict, notebook: dict) -> None:
    "Put definitions back where `notebook` has them, and what nbdev says of their arguments at the page's end."
    shown = {cell.id: cell for cell in nb.cells}
    own = {cell.id for cell in notebook.cells}
    api = [cell for cell in nb.cells if is_api(cell)]
    head = [cell for cell in nb.cells if cell.id not in own and not is_api(cell)]
    body = [shown.get(cell.id) or definition(cell) for cell in notebook.cells]
    if api: api.insert(0, nbformat.v4.new_markdown_cell("## API", id="api"))
    nb.cells = head + [cell for cell in body if cell] + api


def is_api(cell: dict) -> bool:
    "Whether a cell is one of those in which nbdev shows a signature."
    return cell["cell_type"] == "code" and re.search(r"^show_doc\(", cell["source"], re.M) is not None


def api_names(nb: dict) -> list[str]:
    "The functions and classes whose signatures a page shows."
    shown = [output.data["text/markdown"] for cell in nb.cells if is_api(cell) for output in cell.outputs]
    return re.findall(r"^### (.+)", "\n".join(shown), re.M)


def slug(heading: str) -> str:
    "The anchor that Quarto and GitHub give a heading, or the one it states as {#name}."
    text = heading.removesuffix("¶").strip()
    if stated := re.search(r"\{#([\w-]+)", text): return stated[1]
    return re.sub(r"^[^a-z]+", "", re.sub(r"[^\w\s.-]", "", text.lower()).replace(" ", "-"))


def linked(markdown: str, places: dict[str, str]) -> str:
    "Markdown in which names lead to the `places` that show their signatures; not within code, headings and links."
    def link(found):
        name = found[1].removesuffix("()")
        place = places.get(name) or places.get(name.partition(".")[0])
        return f"[{found[0]}]({place})" if place else found[0]

    pieces = re.split(r"(^```.*?^```|^#.*?$|\[[^]]*\]\([^)]*\))", markdown, flags=re.M | re.S)
    pieces[::2] = [re.sub(r"`([\w.]+(?:\(\))?)`", link, piece) for piece in pieces[::2]]
    return "".join(pieces)


def formulas_apart(markdown: str) -> str:
    "Markdown in which the parts of a long formula, `\\qquad` between them, stand on lines of their own."
    def apart(found):
        if len(found[1]) < 80 or "\\begin" in found[1]: return found[0]
        return "\n\n".join(f"$${part.strip()}$$" for part in found[1].split("\\qquad"))
    return re.sub(r"\$\$(.+?)\$\$", apart, markdown, flags=re.S)


def told(cell: dict) -> str:
    "A visible cell's source, with what Quarto is to know: whether it is folded, and a picture's caption."
    source, drawn = cell.source, directive(cell, "fig-alt")
    lines = len(re.sub(r"^#\|.*\n", "", source, flags=re.M).splitlines())
    shown = [set(output.data) for output in cell.outputs if "data" in output]
    if drawn and len(shown) == 1 and PICTURES.keys() & shown[0]:
        caption = re.sub(r"([\\*_`$^~@#[\]])", r"\\\1", drawn[0].upper() + drawn[1:])
        source = f"#| fig-cap: {json.dumps(caption, ensure_ascii=False)}\n{source}"
    if directive(cell, "echo") or directive(cell, "code-fold"): return source
    if re.search(r"^shell\(", source, re.M): return folded(source, "From a notebook")    # the command itself is shown
    if drawn and lines > SHOWN_LINES["picture"]: return folded(source, "Code of the picture")
    if not cell.outputs and lines > SHOWN_LINES["test"] and re.search(r"\bassert|pytest\.raises", source):
        return folded(source, "Test")
    return source


def commands_apart(output: dict) -> list[dict]:
    "An output, command lines in it (after `$`) as blocks of shell, which can be copied, and what they said below each."
    said, *rest = re.split(r"^\$ (.+)\n", output.get("text", ""), flags=re.M)
    if not rest: return [output]
    made = [nbformat.v4.new_output("stream", text=said)]
    for line, said in zip(rest[::2], rest[1::2]):
        made.append(nbformat.v4.new_output("display_data", {"text/markdown": f"```bash\n{line}\n```"}))
        made.append(nbformat.v4.new_output("stream", text=said))
    return [part for part in made if part.get("text", "$").strip()]


def finish(folder: Path) -> None:
    "Give the processed notebooks in `folder` the form of the site."
    made = {path.relative_to(NBS): nbformat.read(folder/path.relative_to(NBS), as_version=4) for path in notebooks()}
    homes = {name: page for page, nb in made.items() for name in api_names(nb) if name not in COMMON_WORDS}
    for page, nb in made.items():
        def from_here(name): return posixpath.relpath(name, page.parent.as_posix())

        def keep(kind, raw):
            name = f"images/made/{sha256(raw).hexdigest()[:16]}.{kind}"
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            (folder/name).write_bytes(raw)
            return from_here(name)

        places = {name: ("" if home == page else from_here(home.as_posix())) + f"#{slug(name)}"
                  for name, home in homes.items()}
        notebook = read(NBS/page)
        arrange(nb, notebook)
        nb.metadata.pop("widgets", None)                    # nbdev's own, for which Quarto would fetch scripts
        if on_colab(notebook):
            address = COLAB + (Path("nbs")/page).as_posix()
            front = yaml.safe_load(nb.cells[0].source.strip().strip("-"))
            front["other-links"] = [{"text": "Open in Colab", "href": address, "icon": "box-arrow-up-right"}]
            nb.cells[0].source = f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"
        for cell in nb.cells:
            cell.pop("has_sd", None)                        # nbdev's own mark, which no notebook may carry
            if cell.cell_type == "markdown": cell.source = formulas_apart(linked(cell.source, places))
            if cell.cell_type != "code": continue
            cell.outputs = [part for output in cell.outputs for part in commands_apart(output)]
            for output in cell.outputs:
                data = output.get("data", {})
                if is_api(cell): data["text/markdown"] = linked(data["text/markdown"], places).replace("__main__.", "")
                if "text/html" in data: data["text/html"] = pictures_apart(data["text/html"], keep)
            cell.source = told(cell)
        nbformat.write(nb, folder/page)                     # in lines: Quarto reads a page's head only so


def docs() -> bool:
    "The site in _docs/. (nbdev_docs would also have Quarto rewrite README.md.)"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    pages = proc_nbs(n_workers=0, force=True)
    finish(pages)
    subprocess.run(["quarto", "render", "--no-cache"], cwd=pages, check=True)
    shutil.rmtree("_docs", ignore_errors=True)
    shutil.move(pages/"_docs", "_docs")
    for page in Path("_docs").rglob("*.html"):
        page.write_text(UNUSED.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    return True


if __name__ == "__main__": sys.exit(not run_command(__doc__, readme, docs))

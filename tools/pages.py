"""Make the README and the site of the notebooks, look at a page as a reader meets it, and say what is wrong with it.

Quarto, which renders the published site, is on no package index. So a page is looked at as nbdev hands it to Quarto,
rendered by nbconvert: it weighs its text, its code and its pictures, without the styles and scripts that pages share.
"""

import argparse
import ast
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from notebooks import NBS, PICTURES, ROOT, SETTINGS, directive, notebooks, read, skipped, write_whole

MAX_WEIGHT = 1_500_000                                                          # bytes
GIT = SETTINGS["DEFAULT"]["git_url"]
BRANCH = SETTINGS["DEFAULT"]["branch"]
LIVE = ("application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json", "application/javascript")
NO_ALT = "No description has been provided for this image"                      # nbconvert's words where there are none
LIVE_TEXT = re.compile(r"\b(interactive|\w*Box|FigureWidget|Tab)\(children=|Unable to display output")

# The cell that lets a notebook run on Colab, where there is no checkout. A notebook that carries it gets the link.
COLAB_EXTRAS = "explore,evaluate"
COLAB_CELL = f"""#| hide
if "google.colab" in str(get_ipython()):
    package = "pixnerd[{COLAB_EXTRAS}] @ git+{GIT}"
    get_ipython().run_line_magic("pip", f"install -q '{{package}}'")"""
COLAB_BRINGS = {"pytest", "IPython", "cycler"}                                  # cycler comes with matplotlib

# Words as this project and others write them; left a pattern that must not stand in prose.
SPELLING = {
    r"ne?rf blocks?|nerd blocks?": "field block",
    r"[xs][ _-]embedders?": "patch embedding, pixel embedding",
    r"imgs?": "images",
    r"utils|helpers|misc": "what it really is",
    r"hyper-?network": "field",
    r"x-?hat|x̂_?1 prediction": "preview",
    r"(?-i:Pixnerd|PixNeRD|PixNERD|PixNeRF|PIXNERD|Pixnerf)": "PixNerd, or `pixnerd` for the package",
    r"(?-i:[Gg]ithub|Git hub)": "GitHub",
    r"(?-i:Pytorch|pytorch)": "PyTorch",
    r"(?-i:Jupyterlab|Jupyter Lab)": "JupyterLab",
    r"(?-i:CIFAR10|Cifar-?10)": "CIFAR-10",
    r"(?-i:Imagenet|imagenet|Image-Net)": "ImageNet",
    r"(?-i:HuggingFace|Huggingface|huggingface)": "Hugging Face",
    r"(?-i:[Dd]ino[Vv]2|DinoV2)": "DINOv2",
    r"(?-i:Geneval|GenEVAL)": "GenEval",
    r"(?-i:Scikit-[Ll]earn|sklearn)": "scikit-learn",
    r"color(s|ed|ful)?": "colour",
    r"normaliz\w+": "normalise",
    r"initializ\w+": "initialise",
    r"behavior\w*": "behaviour",
}
FORBIDDEN = {"cfg", "imgs", "img", "utils", "util", "helpers", "helper", "misc"}    # as parts of exported names
COMMON_WORDS = {"digits", "scenes", "images", "paint"}      # words that are also functions: nbdev makes links of both


# --- open in Colab ---

def on_colab(nb: dict) -> bool:
    "Whether a notebook brings what it needs to run on Colab."
    start = COLAB_CELL.partition(" in str")[0]
    return any(cell["cell_type"] == "code" and cell["source"].startswith(start) for cell in nb["cells"])


def colab_link(path: Path) -> str:
    "The address that opens a notebook of this repository on Colab."
    repository = urlsplit(GIT).path.strip("/")
    return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"


def colab_faults(nb: dict) -> list[str]:
    "Why a notebook that says so would not run on Colab after its one installation."
    from packaging.requirements import Requirement
    if not on_colab(nb): return []
    names = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
    keys = ["requirements", *(f"{extra}_requirements" for extra in COLAB_EXTRAS.split(","))]
    brought = [Requirement(line).name for key in keys for line in SETTINGS["DEFAULT"][key].split()]
    there = {names.get(name, name.replace("-", "_")) for name in brought}
    there |= sys.stdlib_module_names | COLAB_BRINGS | {"pixnerd"}
    found = []
    if not any(cell["source"] == COLAB_CELL for cell in nb["cells"]):
        found.append("the cell for Colab is not the one of tools/pages.py")
    for i, cell in enumerate(nb["cells"]):
        if cell["cell_type"] != "code" or skipped(cell): continue
        if re.search(r"[\"'](\.\./|results/|images/)", cell["source"]):
            found.append(f"cell {i}: reads a file of the checkout, which Colab has not")
        try: tree = ast.parse(cell["source"])
        except SyntaxError: continue
        wanted = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import): wanted += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom): wanted.append(node.module or "")
        missing = [name for name in wanted if name.split(".")[0] not in there]
        found += [f"cell {i}: imports {name}, which Colab would not have" for name in missing]
    return found


# --- the README ---

def readme_parts() -> tuple[str, dict[str, bytes]]:
    "README.md and its pictures (by path from the root), from nbs/index.ipynb."
    from execnb.nbio import read_nb
    from nbdev.process import NBProcessor
    from nbdev.processors import filter_stream_, hide_, hide_line, populate_language, strip_ansi
    nb = read_nb(NBS/"index.ipynb")
    alts = {cell.id: directive(cell, "fig-alt") for cell in nb.cells}
    as_published = [populate_language, strip_ansi, hide_line, filter_stream_, hide_]
    NBProcessor(nb=nb, procs=as_published).process()
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
        kind = next((k for k in PICTURES if k in data), None)
        text = "".join(output.get("text") or data.get("text/markdown") or data.get("text/plain") or "").rstrip()
        html = "".join(data.get("text/html", ""))
        if kind:
            raw = "".join(data[kind])
            return f"![{alt}]({picture(PICTURES[kind], raw.encode() if kind == 'image/svg+xml' else b64decode(raw))})"
        if "<img" in html:
            inline = r"data:image/(\w+);base64,([^\"]+)"
            return re.sub(inline, lambda found: picture(found[1], b64decode(found[2])), html)
        if text and "text/markdown" not in data: return f"```text\n{text}\n```"
        return text

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            blocks.append(re.sub(r"(\]\(|(?:src|href)=\")([^)\"\s]+)", from_root, cell.source))
        elif cell.cell_type == "code":
            code = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
            if code and directive(cell, "echo") != "false": blocks.append(f"```python\n{code}\n```")
            if directive(cell, "output") == "false": continue
            blocks += [shown(output, alts[cell.id] or "") for output in cell.outputs]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n", pictures


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


# --- the site ---

AUTOMATIC_LINK = re.compile(r"\[`([^`]*)`\]\([^)\s]+\)")


def mended_code(markdown: str) -> str:
    "Markdown whose fenced code holds no links and no `__main__.`: nbdev puts both into the signatures it shows."
    def mended(block): return AUTOMATIC_LINK.sub(r"\1", block[0]).replace("__main__.", "")
    return re.sub(r"^```.*?^```", mended, markdown, flags=re.M | re.S)


def api_headings(nb) -> set[str]:
    "Anchors of the functions and classes that nbdev shows on a page."
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    markdown = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    return {slug(name) for name in re.findall(r"^### (.+)", markdown, re.M)}


def mended_prose(markdown: str, shown: dict[str, set[str]]) -> str:
    "Markdown whose automatic links lead to what is `shown` on a page, and none from words that are also functions."
    site = yaml.safe_load((NBS/"nbdev.yml").read_text(encoding="utf-8"))["website"]["site-url"]

    def mended(found):
        code, page, anchor = found.groups()
        if code.strip("`") in COMMON_WORDS: return code
        there = shown.get(page, {anchor})
        kept = next((name for name in (anchor, anchor.partition(".")[0]) if name in there), None)
        return f"[{code}]({site}/{page}#{kept})" if kept else code

    return re.sub(rf"\[(`[^`]*`)\]\({re.escape(site)}/([^)#]+)#([^)]+)\)", mended, markdown)


def finish(folder: Path) -> None:
    "Mend the processed notebooks in `folder`: code and links as above, and links to Colab below a page's contents."
    made = {path: nbformat.read(folder/path.relative_to(NBS), as_version=4) for path in notebooks()}
    fronts = {path: yaml.safe_load(nb.cells[0].source.strip().strip("-")) for path, nb in made.items()}
    shown = {fronts[path]["output-file"]: api_headings(nb) for path, nb in made.items() if path.parent == NBS}
    for path, nb in made.items():
        if on_colab(read(path)):
            link = {"text": "Open in Colab", "href": colab_link(path), "icon": "box-arrow-up-right"}
            front = yaml.safe_dump(fronts[path] | {"other-links": [link]}, sort_keys=False, allow_unicode=True)
            nb.cells[0].source = f"---\n{front}---\n"
        for cell in nb.cells:
            cell.pop("has_sd", None)                        # nbdev's own mark, which no notebook may carry
            if cell.cell_type == "markdown": cell.source = mended_prose(cell.source, shown)
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "text/markdown" in data: data["text/markdown"] = mended_code(data["text/markdown"])
        nbformat.write(nb, folder/path.relative_to(NBS))    # in lines: Quarto reads a page's head only so


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
    return True


# --- a page ---

class Page:
    "A notebook as nbdev hands it to Quarto, rendered."

    def __init__(self, path: Path):
        self.path, self.nb = path, nbformat.read(path, as_version=4)
        front, *cells = self.nb.cells
        self.front = yaml.safe_load(front.source.strip().strip("-")) if front.cell_type == "raw" else {}
        for cell in cells:
            alt = directive(cell, "fig-alt")                # nbconvert takes it from outputs, Quarto from the cell
            for output in cell.get("outputs", []) if alt else []:
                for kind in PICTURES.keys() & output.get("data", {}).keys():
                    output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = alt
        body = nbformat.from_dict({**self.nb, "cells": cells})
        self.html = HTMLExporter(template_name="basic").from_notebook_node(body)[0]
        self.soup = BeautifulSoup(self.html, "html.parser")
        self.links = [a["href"] for a in self.soup.select("a[href]:not(.anchor-link)")]
        self.links += [link["href"] for link in self.front.get("other-links", [])]
        self.images = self.soup.select("img")
        self.pictures = [i["src"] for i in self.images if not i.get("src", "").startswith("data:")]
        self.anchors = {tag["id"] for tag in self.soup.select("[id]")}
        self.anchors |= {slug(heading.get_text()) for heading in self.soup.select("h1,h2,h3,h4,h5,h6")}

    @property
    def weight(self) -> int:
        "Bytes of text, code and pictures; a picture in the page counts as the bytes it stands for."
        inside = sum(len(found[1]) // 4 for found in re.finditer(r"base64,([^\"')]*)", self.html))
        local = [self.path.parent/unquote(urlsplit(src).path) for src in set(self.pictures)]
        return len(self.html.encode()) - inside + sum(p.stat().st_size for p in local if p.is_file())


def slug(heading: str) -> str:
    "The anchor that Quarto and GitHub give a heading, or the one it states as {#name}."
    text = heading.removesuffix("¶").strip()
    if stated := re.search(r"\{#([\w-]+)", text): return stated[1]
    return re.sub(r"^[^a-z]+", "", re.sub(r"[^\w\s.-]", "", text.lower()).replace(" ", "-"))


def prose(source: str) -> str:
    "Markdown without code, formulas and addresses."
    source = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.M | re.S)
    source = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`", " ", source, flags=re.S)
    return re.sub(r"\]\([^)]*\)|<[^>]+>|https?://\S+|\{#[^}]*\}", " ", source)


def misspelt(text: str) -> list[str]:
    "Words that this project writes otherwise."
    found = []
    for pattern, instead in SPELLING.items():
        for match in re.finditer(rf"(?<![\w/.-])(?:{pattern})(?![\w/])", text, re.I):
            found.append(f"{match[0]!r} (write {instead})")
    return found


def forbidden_names(module: Path) -> list[str]:
    "Names of a module, its functions, classes, arguments and fields that say nothing, or in another program's words."
    names = [module.stem]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.append(node.name)
        elif isinstance(node, ast.arg): names.append(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name): names.append(node.target.id)
    return sorted({name for name in names if FORBIDDEN & set(name.lower().split("_"))})


def faults(name: str, pages: dict[str, Page], folder: Path) -> list[str]:
    "What a reader should not meet on the page `name`; `folder` holds the processed notebooks, `pages` all of them."
    page = pages[name]
    found = [f"no {key}" for key in ("title", "description") if not page.front.get(key)]
    head = json.loads(page.path.read_text(encoding="utf-8"))["cells"][0]
    if not isinstance(head["source"], list):
        found.append("the page's head is stored as one string, which Quarto shows as text")
    found += [f"dead link: {link}" for link in dead_links(name, pages, folder)]
    for image in page.images:
        if image.get("alt", "").strip() in ("", NO_ALT):
            found.append(f"picture without alt text: {image.get('src', '')[:60]}")
    if page.weight > MAX_WEIGHT:
        found.append(f"too heavy: {page.weight / 1e6:.2f} MB, more than {MAX_WEIGHT / 1e6:.1f}")
    for i, cell in enumerate(page.nb.cells):
        for output in cell.get("outputs", []): found += [f"cell {i}: {fault}" for fault in output_faults(output)]
        if cell.cell_type == "markdown":
            found += [f"cell {i}: spelling, {word}" for word in misspelt(prose(cell.source))]
            if mended_prose(cell.source, {}) != cell.source:
                found.append(f"cell {i}: a common word is a link to a function")
    head = f"{page.front.get('title', '')} {page.front.get('description', '')}"
    return found + [f"spelling in the head, {word}" for word in misspelt(head)]


def output_faults(output: dict) -> list[str]:
    "What a page cannot show of a cell's output, or should not."
    data, found = output.get("data", {}), []
    still = {*PICTURES, "text/html", "text/markdown"} & data.keys()
    markdown = data.get("text/markdown", "")
    if output.output_type == "error": found.append(f"a stored error, {output['ename']}")
    if not still and (set(LIVE) & data.keys() or LIVE_TEXT.search(data.get("text/plain", ""))):
        found.append("a live output without a static twin")
    if mended_code(markdown) != markdown: found.append("a raw link, or `__main__.`, within code")
    elsewhere = r"<(?:script|iframe|link)[^>]+(?:src|href)=[\"']?(https?:[^\"'\s>]+)"
    for source in re.findall(elsewhere, data.get("text/html", "")):
        found.append(f"needs {source}, so it is not self-contained")
    return found


def dead_links(name: str, pages: dict[str, Page], folder: Path) -> list[str]:
    "Links and pictures of a page that lead nowhere within this project, or to a heading that is not there."
    website = yaml.safe_load((NBS/"nbdev.yml").read_text(encoding="utf-8"))["website"]
    home, code = website["site-url"] + "/", f"{website['repo-url']}/blob/{website['repo-branch']}/"
    colab = colab_link(ROOT/"x").removesuffix("x")
    # neural_field.html → 03_neural_field.ipynb
    published = {(Path(n).parent/p.front.get("output-file", n)).as_posix(): n for n, p in pages.items()}
    dead = []
    for link in pages[name].links + pages[name].pictures:
        source = next((link[len(start):] for start in (code, colab) if link.startswith(start)), None)
        if source is not None:                              # a file of this project, on GitHub or on Colab
            if not (ROOT/urlsplit(source).path).exists(): dead.append(link)
            continue
        where = link
        if link.startswith(home): where = urljoin("/", link[len(home):])
        elif re.match(r"[a-z]+:", link): continue
        path, anchor = unquote(urlsplit(where).path), urlsplit(where).fragment
        if path.startswith("/"): path = path.lstrip("/")
        else: path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        target = published.get(path, path)
        if not (folder/target).is_file(): dead.append(link)
        elif anchor and target in pages and anchor not in pages[target].anchors: dead.append(f"{link}: no such heading")
    return dead


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in readme, docs:
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if command is readme: sub.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = vars(parser.parse_args())
    os.chdir(ROOT)                                          # where nbdev looks for settings.ini
    return 0 if args.pop("command")(**args) else 1


if __name__ == "__main__": sys.exit(main())

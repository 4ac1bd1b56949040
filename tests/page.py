"""A page as a reader meets it, and what is wrong with it.

Quarto, which renders the published site, is on no package index. So a page is looked at as tools/pages.py hands it to
Quarto, rendered by nbconvert: it weighs its text, its code and its pictures, without the styles and scripts of all.
"""

import ast
import json
import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from notebooks import NBS, PICTURES, ROOT, SETTINGS, directive, output_faults, skipped
from pages import COLAB, COLAB_CELL, COLAB_EXTRAS, COMMON_WORDS, on_colab, slug

MAX_WEIGHT = 1_500_000                                                          # bytes
NO_ALT = "No description has been provided for this image"                      # nbconvert's words where there are none
COLAB_BRINGS = {"pytest", "IPython", "cycler", "pixnerd"} | sys.stdlib_module_names      # cycler comes with matplotlib
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml", "torch-fidelity": "torch_fidelity"}

# Names as others write them, and what must not stand in prose: left a pattern, right what to write.
NAMES = ("GitHub", "PyTorch", "JupyterLab", "CIFAR-10", "ImageNet", "Hugging Face", "DINOv2", "scikit-learn")
SPELLING = {re.sub(r"(?<=[a-z])(?=[A-Z])|[- ]", "[- ]?", name): name for name in NAMES} | {
    r"ne?rf blocks?|nerd blocks?": "field block",
    r"[xs][ _-]embedders?": "patch embedding, pixel embedding",
    r"imgs?": "images",
    r"utils|helpers|misc": "what it really is",
    r"hyper-?network": "field",
    r"x-?hat|x̂_?1 prediction": "preview",
    r"(?-i:Pixnerd|PixNeRD|PixNERD|PixNeRF|PIXNERD|Pixnerf)": "PixNerd, or `pixnerd` for the package",
    r"(?-i:Geneval|GenEVAL)": "GenEval",
    r"sklearn": "scikit-learn",
    r"color(s|ed|ful)?": "colour",
    r"normaliz\w+": "normalise",
    r"initializ\w+": "initialise",
    r"behavior\w*": "behaviour",
}
FORBIDDEN = {"cfg", "imgs", "img", "utils", "util", "helpers", "helper", "misc"}    # as parts of exported names


def colab_faults(nb: dict) -> list[str]:
    "Why a notebook that says so would not run on Colab after its one installation."
    if not on_colab(nb): return []
    keys = ["requirements", *(f"{extra}_requirements" for extra in COLAB_EXTRAS.split(","))]
    brought = re.findall(r"^[\w-]+", "\n".join(SETTINGS["DEFAULT"][key].replace(" ", "\n") for key in keys), re.M)
    there = COLAB_BRINGS | {IMPORTED_AS.get(name, name) for name in brought}
    found = []
    if not any(cell["source"] == COLAB_CELL for cell in nb["cells"]):
        found.append("the cell for Colab is not the one of tools/pages.py")
    for i, cell in enumerate(nb["cells"]):
        if cell["cell_type"] != "code" or skipped(cell): continue
        if re.search(r"[\"'](\.\./|results/|images/)", cell["source"]):
            found.append(f"cell {i}: reads a file of the checkout, which Colab has not")
        try: nodes = list(ast.walk(ast.parse(cell["source"])))
        except SyntaxError: continue
        wanted = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        wanted += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        missing = [name for name in wanted if name.partition(".")[0] not in there]
        found += [f"cell {i}: imports {name}, which Colab would not have" for name in missing]
    return found


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
        self.html = HTMLExporter(template_name="basic", exclude_input=True).from_notebook_node(body)[0]
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
        text = len(self.html.encode()) + sum(len(cell.source) for cell in self.nb.cells if cell.cell_type == "code")
        return text - inside + sum(p.stat().st_size for p in local if p.is_file())


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
            if match[0] != instead: found.append(f"{match[0]!r} (write {instead})")
    return found


def forbidden_names(module: Path) -> list[str]:
    "Names of a module, its functions, classes, arguments and fields that say nothing, or in another program's words."
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    names = {module.stem, *(n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef)))}
    names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names |= {n.target.id for n in nodes if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return sorted(name for name in names if FORBIDDEN & set(name.lower().split("_")))


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
    if "widgets" in page.nb.metadata: found.append("states of widgets, for which Quarto would fetch scripts")
    for i, cell in enumerate(page.nb.cells):
        for output in cell.get("outputs", []):
            wrong = output_faults(cell, output) + page_faults(output)
            found += [f"cell {i}: {fault}" for fault in wrong]
        if cell.cell_type == "markdown":
            found += [f"cell {i}: spelling, {word}" for word in misspelt(prose(cell.source))]
            if re.search(rf"\[`({'|'.join(COMMON_WORDS)})`\]\([^)]*#", cell.source):
                found.append(f"cell {i}: a common word is a link to a function")
    head = f"{page.front.get('title', '')} {page.front.get('description', '')}"
    return found + [f"spelling in the head, {word}" for word in misspelt(head)]


def page_faults(output: dict) -> list[str]:
    "What a page, besides, cannot show of a cell's output."
    data = output.get("data", {})
    markdown = data.get("text/markdown", "")
    found = ["a raw link, or `__main__.`, within code"] if re.search(r"__main__\.|^```[^`]*\[`", markdown) else []
    if 'src="data:' in data.get("text/html", ""): found.append("a picture within the page: social cards would carry it")
    elsewhere = r"<(?:script|iframe|link)[^>]+(?:src|href)=[\"']?(https?:[^\"'\s>]+)"
    sources = re.findall(elsewhere, data.get("text/html", ""))
    return found + [f"needs {source}, so it is not self-contained" for source in sources]


def dead_links(name: str, pages: dict[str, Page], folder: Path) -> list[str]:
    "Links and pictures of a page that lead nowhere within this project, or to a heading that is not there."
    website = yaml.safe_load((NBS/"nbdev.yml").read_text(encoding="utf-8"))["website"]
    home, code = website["site-url"] + "/", f"{website['repo-url']}/blob/{website['repo-branch']}/"
    # neural_field.html → 03_neural_field.ipynb
    published = {(Path(n).parent/p.front.get("output-file", n)).as_posix(): n for n, p in pages.items()}
    dead = []
    for link in pages[name].links + pages[name].pictures:
        if link.startswith((code, COLAB)):                  # a file of this project, on GitHub or on Colab
            source = urlsplit(link.removeprefix(code).removeprefix(COLAB)).path
            if not (ROOT/source).exists(): dead.append(link)
            continue
        where = urlsplit(link.replace(home, "/", 1) if link.startswith(home) else link)
        if where.scheme: continue
        base = name if not where.path else posixpath.join("/", posixpath.dirname(name), unquote(where.path))
        path = posixpath.normpath(base).lstrip("/")
        target = published.get(path, path)
        if not (folder/target).is_file(): dead.append(link)
        elif where.fragment and where.fragment not in getattr(pages.get(target), "anchors", {where.fragment}):
            dead.append(f"{link}: no such heading")
    return dead

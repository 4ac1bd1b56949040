"""Look at the site as a reader meets it, and say what is wrong with a page, one line each.

Quarto, which renders the published site, is on no package index. So a page is looked at as nbdev hands it to Quarto, rendered
by nbconvert: what it weighs is its text, its code and its pictures, without the styles and scripts that all pages share.
"""

import ast
import json
import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from notebooks import NBS, PICTURES, ROOT, SETTINGS, directive, notebooks, read, skipped

MAX_WEIGHT = 1_500_000                                                          # bytes
GIT = SETTINGS["DEFAULT"]["git_url"]
BRANCH = SETTINGS["DEFAULT"]["branch"]
LIVE = ("application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json", "application/javascript")
NO_ALT = "No description has been provided for this image"                        # what nbconvert says where nothing was said
LIVE_TEXT = re.compile(r"\b(interactive|\w*Box|FigureWidget|Tab)\(children=|Unable to display output")

# The cell that lets a notebook run on Colab, where there is no checkout. A notebook that carries it gets the link.
COLAB_EXTRAS = "explore,evaluate"
COLAB_CELL = f"""#| hide
if "google.colab" in str(get_ipython()): get_ipython().run_line_magic("pip", "install -q 'pixnerd[{COLAB_EXTRAS}] @ git+{GIT}'")"""
COLAB_BRINGS = {"pytest", "IPython", "cycler"}                                    # cycler comes with matplotlib

# Words of this project (DESIGN.md) and names of others, as they are written; left a pattern that must not stand in prose.
SPELLING = {r"ne?rf blocks?|nerd blocks?": "field block", r"[xs][ _-]embedders?": "patch embedding, pixel embedding", r"imgs?": "images", r"utils|helpers|misc": "what it really is", r"hyper-?network": "field",
            r"x-?hat|x̂_?1 prediction": "preview", r"(?-i:Pixnerd|PixNeRD|PixNERD|PixNeRF|PIXNERD|Pixnerf)": "PixNerd, or `pixnerd` for the package", r"(?-i:[Gg]ithub|Git hub)": "GitHub",
            r"(?-i:Pytorch|pytorch)": "PyTorch", r"(?-i:Jupyterlab|Jupyter Lab)": "JupyterLab", r"(?-i:CIFAR10|Cifar-?10)": "CIFAR-10", r"(?-i:Imagenet|imagenet|Image-Net)": "ImageNet",
            r"(?-i:HuggingFace|Huggingface|huggingface)": "Hugging Face", r"(?-i:[Dd]ino[Vv]2|DinoV2)": "DINOv2", r"(?-i:Geneval|GenEVAL)": "GenEval", r"(?-i:Scikit-[Ll]earn|sklearn)": "scikit-learn",
            r"color(s|ed|ful)?": "colour", r"normaliz\w+": "normalise", r"initializ\w+": "initialise", r"behavior\w*": "behaviour"}
FORBIDDEN = {"cfg", "imgs", "img", "utils", "util", "helpers", "helper", "misc"}          # as parts of exported names


# --- open in Colab ---

def on_colab(nb: dict) -> bool:
    "Whether a notebook brings what it needs to run on Colab."
    return any(cell["cell_type"] == "code" and cell["source"].startswith("#| hide\nif \"google.colab\"") for cell in nb["cells"])


def colab_link(path: Path) -> str:
    "The address that opens a notebook of this repository on Colab."
    return f"https://colab.research.google.com/github/{urlsplit(GIT).path.strip('/')}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"


def colab_faults(nb: dict) -> list[str]:
    "Why a notebook that says so would not run on Colab after its one installation."
    if not on_colab(nb): return []
    from packaging.requirements import Requirement
    names = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
    lines = [line for key in ("", *(f"{extra}_" for extra in COLAB_EXTRAS.split(","))) for line in SETTINGS["DEFAULT"][f"{key}requirements"].split()]
    there = {names.get(Requirement(line).name, Requirement(line).name.replace("-", "_")) for line in lines} | sys.stdlib_module_names | COLAB_BRINGS | {"pixnerd"}
    found = [] if any(cell["source"] == COLAB_CELL for cell in nb["cells"]) else ["the cell for Colab is not the one of tools/pages.py"]
    for i, cell in enumerate(nb["cells"]):
        if cell["cell_type"] != "code" or skipped(cell): continue
        if re.search(r"[\"'](\.\./|results/|images/)", cell["source"]): found.append(f"cell {i}: reads a file of the checkout, which Colab has not")
        try: tree = ast.parse(cell["source"])
        except SyntaxError: continue
        for node in ast.walk(tree):
            wanted = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"cell {i}: imports {name}, which Colab would not have" for name in wanted if name.split(".")[0] not in there]
    return found


def finish(folder: Path) -> None:
    "Give the processed notebooks in `folder` what nbdev does not: links to Colab, below a page's contents (Quarto's `other-links`)."
    for path in notebooks():
        if not on_colab(read(path)): continue
        page = folder/path.relative_to(NBS)
        nb = json.loads(page.read_text(encoding="utf-8"))
        front = yaml.safe_load("".join(nb["cells"][0]["source"]).strip().strip("-"))
        front["other-links"] = [{"text": "Open in Colab", "href": colab_link(path), "icon": "box-arrow-up-right"}]
        nb["cells"][0]["source"] = f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"
        page.write_text(json.dumps(nb), encoding="utf-8")


# --- a page ---

class Page:
    "A notebook as nbdev hands it to Quarto, rendered."

    def __init__(self, path: Path):
        self.path, self.nb = path, nbformat.read(path, as_version=4)
        front, *cells = self.nb.cells
        self.front = yaml.safe_load(front.source.strip().strip("-")) if front.cell_type == "raw" else {}
        for cell in cells:                                                      # nbconvert takes alt text from outputs, Quarto from the cell
            cell.pop("has_sd", None)                                            # nbdev's own mark, which no notebook may carry
            alt = directive(cell, "fig-alt")
            for output in cell.get("outputs", []) if alt else []:
                for kind in PICTURES.keys() & output.get("data", {}).keys(): output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = alt
        body = nbformat.from_dict({**self.nb, "cells": cells})
        self.html = HTMLExporter(template_name="basic").from_notebook_node(body)[0]
        self.soup = BeautifulSoup(self.html, "html.parser")
        self.links = [a["href"] for a in self.soup.select("a[href]:not(.anchor-link)")] + [link["href"] for link in self.front.get("other-links", [])]
        self.images = self.soup.select("img")
        self.pictures = [i["src"] for i in self.images if not i.get("src", "").startswith("data:")]
        self.anchors = {tag["id"] for tag in self.soup.select("[id]")} | {slug(h.get_text()) for h in self.soup.select("h1,h2,h3,h4,h5,h6")}

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
        for match in re.finditer(rf"(?<![\w/.-])(?:{pattern})(?![\w/])", text, re.I): found.append(f"{match[0]!r} (write {instead})")
    return found


def forbidden_names(module: Path) -> list[str]:
    "Names of a module, its functions, classes, arguments and fields that say nothing, or in the words of another program."
    names = [module.stem]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.append(node.name)
        elif isinstance(node, ast.arg): names.append(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name): names.append(node.target.id)
    return sorted({name for name in names if FORBIDDEN & set(name.lower().split("_"))})


def faults(name: str, pages: dict[str, Page], folder: Path) -> list[str]:
    "What a reader should not meet on the page `name`; `folder` holds the processed notebooks, `pages` all of them."
    page, found = pages[name], []
    if not page.front.get("title"): found.append("no title")
    if not page.front.get("description"): found.append("no description")
    found += [f"dead link: {link}" for link in dead_links(name, pages, folder)]
    for image in page.images:
        if image.get("alt", "").strip() in ("", NO_ALT): found.append(f"picture without alt text: {image.get('src', '')[:60]}")
    if page.weight > MAX_WEIGHT: found.append(f"too heavy: {page.weight / 1e6:.2f} MB, more than {MAX_WEIGHT / 1e6:.1f}")
    for i, cell in enumerate(page.nb.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            still = {*PICTURES, "text/html", "text/markdown"} & data.keys()
            if output.output_type == "error": found.append(f"cell {i}: a stored error, {output['ename']}")
            if not still and (set(LIVE) & data.keys() or LIVE_TEXT.search(data.get("text/plain", ""))): found.append(f"cell {i}: a live output without a static twin")
            for source in re.findall(r"<(?:script|iframe|link)[^>]+(?:src|href)=[\"']?(https?:[^\"'\s>]+)", "".join(data.get("text/html", ""))):
                found.append(f"cell {i}: needs {source}, so it is not self-contained")
        if cell.cell_type == "markdown": found += [f"cell {i}: spelling, {word}" for word in misspelt(prose(cell.source))]
    return found + [f"spelling in the head, {word}" for word in misspelt(f"{page.front.get('title', '')} {page.front.get('description', '')}")]


def dead_links(name: str, pages: dict[str, Page], folder: Path) -> list[str]:
    "Links and pictures of a page that lead nowhere within this project, or to a heading that is not there."
    website = yaml.safe_load((NBS/"nbdev.yml").read_text(encoding="utf-8"))["website"]
    home, code = website["site-url"] + "/", f"{website['repo-url']}/blob/{website['repo-branch']}/"
    colab = colab_link(ROOT/"x").removesuffix("x")
    published = {(Path(n).parent/p.front.get("output-file", n)).as_posix(): n for n, p in pages.items()}      # neural_field.html → 03_neural_field.ipynb
    dead = []
    for link in pages[name].links + pages[name].pictures:
        source = next((link[len(start):] for start in (code, colab) if link.startswith(start)), None)
        if source is not None:                                                  # a file of this project, on GitHub or on Colab
            if not (ROOT/urlsplit(source).path).exists(): dead.append(link)
            continue
        where = link
        if link.startswith(home): where = urljoin("/", link[len(home):])
        elif re.match(r"[a-z]+:", link): continue
        path, anchor = unquote(urlsplit(where).path), urlsplit(where).fragment
        path = path.lstrip("/") if path.startswith("/") else posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        target = published.get(path, path)
        if not (folder/target).is_file(): dead.append(link)
        elif anchor and target in pages and anchor not in pages[target].anchors: dead.append(f"{link}: no such heading")
    return dead

"The package as a house: floors, what each module may import, and a bare GPU node where no notebook tool is installed."

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MODULES = {p.stem: p for p in sorted((ROOT/"pixnerd").glob("*.py")) if p.stem[0] != "_"}
WIDGETS = {"ipywidgets", "plotly", "anywidget"}             # only LIVE modules touch them
LIVE = {"show", "boards", "explorer", "explorers", "lenses", "monitor"}     # what may, when asked to
NOTEBOOK_TOOLS = WIDGETS | {"IPython", "nbdev", "fastcore", "jupyterlab", "nbclient", "nbformat"}
NOT_ON_A_NODE = NOTEBOOK_TOOLS | {"torchvision", "torch_fidelity"}
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}  # distributions imported under another name

parser = ConfigParser(delimiters=["="])
parser.read(ROOT/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def requirements(*keys: str) -> list[Requirement]:
    "What lists of settings.ini ask for."
    return [Requirement(line) for key in keys for line in settings[key].split()]


def floor(name: str) -> tuple[int, str]:
    "The number and letter of the notebook that exports a module: 3 < 3a < 4."
    told = r"File to edit: \.\./(nbs/(\d+)([a-z]?)_(\w+)\.ipynb)"
    origin = re.search(told, MODULES[name].read_text(encoding="utf-8"))
    assert origin and origin[4] == name, f"pixnerd/{name}.py is not the export of a notebook NN_{name}.ipynb"
    assert (ROOT/origin[1]).is_file(), f"pixnerd/{name}.py is the export of {origin[1]}, which is gone: delete it"
    return int(origin[2]), origin[3]


def imported(nodes) -> list[str]:
    "Full names of the modules that import statements name, relative ones under pixnerd."
    found = []
    for node in nodes:
        if isinstance(node, ast.Import): found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["pixnerd" if node.level else "", node.module]))
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "pixnerd" else [module]
    return found


def python(code: str) -> str:
    "Run code in a fresh interpreter, from the project's folder."
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode: pytest.fail(done.stderr[-2000:], pytrace=False)
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_imports(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    everywhere, at_the_top = imported(ast.walk(tree)), imported(tree.body)
    rooms = {m.split(".")[1] for m in everywhere if m.startswith("pixnerd.")}
    above = [room for room in rooms if room in MODULES and floor(room) >= floor(name)]
    assert not above, f"{name} is on floor {floor(name)} and imports {above}"
    if name not in LIVE:
        assert not WIDGETS & {m.split(".")[0] for m in everywhere}, f"only {LIVE} touch widgets"
    required = {IMPORTED_AS.get(r.name, r.name) for r in requirements("requirements")}
    undeclared = {m.split(".")[0] for m in at_the_top} - required - sys.stdlib_module_names - {"pixnerd"}
    assert not undeclared, f"imported when {name} is, and no runtime requirement in settings.ini: {undeclared}"


@pytest.mark.parametrize("name", MODULES)
def test_rooms_keep_their_private_names(name):
    "What another room needs is public: no import of, and no attribute access to, another module's `_name`."
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found, rooms = [], set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("pixnerd"): continue
        if node.module == "pixnerd": rooms |= {a.asname or a.name for a in node.names if a.name in MODULES}
        found += [f"{node.module}.{a.name}" for a in node.names if a.name[0] == "_" and not a.name.startswith("__")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            if node.attr[0] == "_" and not node.attr.startswith("__"): found.append(f"{node.value.id}.{node.attr}")
    assert not found, f"{name} uses another room's private names: {found}"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented(name):
    "Every public function and class says what it is for; every line of the package can be read without scrolling."
    text = MODULES[name].read_text(encoding="utf-8")
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [node for node in ast.parse(text).body if isinstance(node, kinds) and node.name[0] != "_"]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert not silent, f"{name}: without a docstring: {silent}"
    body = text[text.index("# %% ../nbs"):]                 # above it: the title's sentence, and nbdev's list of names
    wide = [line for line in body.splitlines() if len(line) > 120]
    assert not wide, "\n".join([f"{name}: lines wider than 120 characters", *wide])


def test_every_module_imports_without_notebook_tools():
    python(f"""
import sys
from importlib import import_module
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {NOT_ON_A_NODE}: raise ModuleNotFoundError(name + ' is not on a bare node', name=name)
sys.meta_path.insert(0, Absent())
for name in {list(MODULES)}: import_module('pixnerd.' + name)
""")


def test_importing_brings_no_widgets_and_no_pyplot():
    brought = python(f"""
import sys
from importlib import import_module
seen = set()
for name in {[m for m in MODULES if m not in LIVE]}:
    import_module('pixnerd.' + name)
    new = sys.modules.keys() & {NOTEBOOK_TOOLS | {"torch_fidelity", "matplotlib.pyplot"}} - seen
    if new: print('pixnerd.' + name, 'brings', *sorted(new))
    seen |= new
""")
    assert not brought, brought


def test_version_and_commands():
    import pixnerd
    assert pixnerd.__version__ == settings["version"]
    for command in settings["console_scripts"].split():
        module, function = command.split("=")[1].split(":")
        assert callable(getattr(import_module(module), function)), command
    assert "pixnerd" in {e.name for e in entry_points(group="nbdev")}, "pip install -e . has not been run"


def test_constraints_hold_what_settings_ask():
    lines = [line for line in (ROOT/"constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert lines == sorted(lines, key=str.upper)
    tested = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for wanted in requirements(*(key for key in settings if key.endswith("requirements"))):
        version = tested[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted}, but {version} was tested"

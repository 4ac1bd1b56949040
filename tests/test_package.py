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
LIVE = {"show", "explorer", "explorers", "monitor"}         # what may touch them, when asked to
NOTEBOOK_TOOLS = WIDGETS | {"IPython", "nbdev", "fastcore", "jupyterlab", "nbclient", "nbformat", "torchvision", "torch_fidelity"}
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}  # distributions imported under another name

parser = ConfigParser(delimiters=["="])
parser.read(ROOT/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def requirements(*keys: str) -> list[Requirement]: return [Requirement(line) for key in keys for line in settings[key].split()]


def floor(name: str) -> tuple[int, str]:
    "The number and letter of the notebook that exports a module: 3 < 3a < 4."
    origin = re.search(r"File to edit: \.\./nbs/(\d+)([a-z]?)_(\w+)\.ipynb", MODULES[name].read_text(encoding="utf-8"))
    assert origin and origin[3] == name, f"pixnerd/{name}.py is not the export of a notebook NN_{name}.ipynb"
    return int(origin[1]), origin[2]


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
    above = [m for m in everywhere if m.startswith("pixnerd.") and (other := m.split(".")[1]) in MODULES and floor(other) >= floor(name)]
    assert not above, f"{name} is on floor {floor(name)} and imports {above}"
    if name not in LIVE:
        assert not WIDGETS & {m.split(".")[0] for m in everywhere}, f"only {LIVE} touch widgets"
    required = {IMPORTED_AS.get(r.name, r.name) for r in requirements("requirements")}
    undeclared = {m.split(".")[0] for m in at_the_top} - required - sys.stdlib_module_names - {"pixnerd"}
    assert not undeclared, f"imported when {name} is, and no runtime requirement in settings.ini: {undeclared}"


def test_every_module_imports_without_notebook_tools():
    python(f"""
import sys
from importlib import import_module
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {NOTEBOOK_TOOLS}: raise ModuleNotFoundError(name + ' is not on a bare node', name=name)
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
    new = sys.modules.keys() & {NOTEBOOK_TOOLS - {"torchvision"} | {"matplotlib.pyplot"}} - seen
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
    for wanted in requirements("requirements", "explore_requirements", "evaluate_requirements", "hub_requirements", "dev_requirements"):
        assert wanted.specifier.contains(tested[canonicalize_name(wanted.name)]), f"{wanted}, but {tested[canonicalize_name(wanted.name)]} was tested"

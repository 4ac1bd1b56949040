"A researcher with an idea and the how-to page, in a copy of the project."

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from notebooks import ROOT
from test_record import cells


@pytest.mark.timeout(600)
def test_a_strangers_encoding_from_the_page_to_a_trained_model(tmp_path):
    "What howto/add_encoding.ipynb says, done to a copy of the project: the cell, the name, export, training, judging."
    for name in "nbs", "pixnerd": shutil.copytree(ROOT/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    shutil.copy(ROOT/"settings.ini", tmp_path)
    page = cells("howto/add_encoding.ipynb")
    cell = next(source for source in page if source.startswith("def bumps("))
    told = "\n".join(cells("howto/add_encoding.ipynb", "markdown"))
    entry, expected = '"none": no_encoding, "bumps": bumps}', '"bumps": 64'
    assert f"`{entry}`" in told and f"`{expected}`" in told and "`#| export`" in told
    path = tmp_path/"nbs"/"03_neural_field.ipynb"
    nb = json.loads(path.read_text(encoding="utf-8"))
    at = next(i for i, c in enumerate(nb["cells"]) if "def no_encoding(" in "".join(c["source"]))
    nb["cells"].insert(at + 1, {"cell_type": "code", "id": "mine", "metadata": {}, "execution_count": None, "outputs": [], "source": f"#| export\n{cell}"})
    table = next(c for c in nb["cells"][at:] if "ENCODINGS:dict" in "".join(c["source"]))
    assert '"none": no_encoding}' in "".join(table["source"])
    table["source"] = "".join(table["source"]).replace('"none": no_encoding}', entry)
    path.write_text(json.dumps(nb), encoding="utf-8")
    def run(code, *options):
        done = subprocess.run([sys.executable, "-c", code, *options], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
    run("from nbdev.doclinks import nbdev_export; nbdev_export()")
    assert "def bumps(" in (tmp_path/"pixnerd"/"neural_field.py").read_text(encoding="utf-8")
    assert run("from pixnerd.encodings import encoding_table as table; print(tuple(table('bumps', (8, 8)).shape))") == "(64, 64)\n"
    for encoding in "dct", "bumps":
        run("from pixnerd.cli import train_command; train_command()", "--model", f"encoding={encoding}", "--steps", "2", "--batch", "8", "--out", f"runs/{encoding}")
        run("from pixnerd.cli import evaluate_command; evaluate_command()", "--model", f"runs/{encoding}", "--total", "20", "--steps", "2", "--guidance-scale", "1", "--reference", "digits",
            "--extractor", "digits", "--metrics", "fid", "--out", f"judged/{encoding}")
    compared = run("from pixnerd.cli import evaluate_command; evaluate_command()", "--compare", "judged/bumps/metrics.json", "judged/dct/metrics.json")
    assert re.search(r"encoding\s*\|\s*bumps\s*\|\s*dct", compared)

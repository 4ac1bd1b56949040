"What tests of data share: folders of small pictures, and code in a fresh interpreter."

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LINUX = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(),
                           reason="memory and processes are measured through Linux's /proc")


def python(code: str, **env) -> str:
    "Run code in a fresh interpreter, from the project's folder; return what it printed."
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def fill(folder: Path, names, caption=None):
    "Small pictures of these names, each of a colour of its own."
    for name in names:
        path = folder/name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), tuple(hashlib.sha1(name.encode()).digest()[:3])).save(path)
        if caption: path.with_suffix(".txt").write_text(caption.format(path.stem))
    return folder

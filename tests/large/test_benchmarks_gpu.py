"The one call that measures on a GPU, rehearsed where there is none."

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_gpu_script_rehearses(tmp_path):
    options = ["--device", "cuda", "--rehearse", "--out", tmp_path/"b.json"]
    command = [sys.executable, ROOT/"tools/measure", "benchmarks", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-1500:]
    made = json.loads((tmp_path/"b.json").read_text())
    assert set(made["series"]) == {"XL/16, 256 px", "XL/16, 512 px", "XL/16, other decoders",
                                   "XL/16, published arithmetic", "XL/16, sampling"}
    assert {"roofline", "memory", "cost_by_part"} <= set(made)

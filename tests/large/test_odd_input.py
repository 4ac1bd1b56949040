"Thousands of command lines and recipes that nobody means, within 4 GiB: each one line, none above a second."

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = """
import os, resource, sys
from collections import Counter
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import odd_input
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (4 << 30),) * 2) # above what the libraries have mapped
odd_input.fill(Path())
os.environ["HOME"] = os.getcwd()
for line in ("sample --model digits", "sample --model scenes", "evaluate --samples digits",
             "evaluate --samples scenes"):
    odd_input.hostile(line.split()) # loads what is lazy
verdicts, slowest = Counter(), 0
for words in odd_input.odd_lines(int(sys.argv[2]), 4000, Path()):
    what, said, seconds = odd_input.hostile(words)
    verdicts[what] += 1
    slowest = max(slowest, seconds)
    if what not in ("refused", "begun", "done"): print(what, seconds, [word[:80] for word in words], said)
print(dict(verdicts), f"slowest {slowest:.2f} s")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(f"peak {peak} MiB")
sys.exit(bool(set(verdicts) - {"refused", "begun", "done"}))
"""


def test_odd_command_lines_and_recipes(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CODE, str(ROOT/"tests"), "1"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr

"""Processes as new as a shell's, without the longest part of their start: each is forked from one that has loaded the libraries, and nothing of pixnerd.

What such a process shares with its sisters is what the libraries are after import, and the order of sets of strings. Where
that matters - two runs that must agree, a start that must work - a test starts Python itself, through `subprocess`.
"""

import json
import os
import random
import resource
import subprocess
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BEGINNING = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | {"HF_HUB_OFFLINE": "1"}     # without what the tests' own process adds to it later
LIBRARIES = ["torch", "torch._dynamo", "accelerate", "sklearn.datasets", "sklearn.svm"]     # torch.optim brings _dynamo at its first step


@lru_cache
def parent(environment: tuple) -> subprocess.Popen:
    "The process that others are forked from, in one environment; it ends with this one."
    return subprocess.Popen([sys.executable, __file__], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def run(code: str, *arguments, cwd=ROOT, largest_file: int = 0, **environment) -> subprocess.CompletedProcess:
    "What `subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True)` would give, without a network."
    forks = parent(tuple(sorted((BEGINNING | environment).items())))
    with TemporaryDirectory() as folder:
        out, err = Path(folder)/"out", Path(folder)/"err"
        job = dict(code=code, arguments=list(map(str, arguments)), cwd=str(cwd), largest_file=largest_file, out=str(out), err=str(err))
        try:
            print(json.dumps(job), file=forks.stdin, flush=True)
            status = int(forks.stdout.readline())
        except BaseException:                               # a test that ran out of time, say: end the process, and start anew next time
            os.killpg(forks.pid, 9), forks.wait(), parent.cache_clear()
            raise
        return subprocess.CompletedProcess([code, *arguments], status, out.read_text(), err.read_text())


def next_job() -> dict:
    "In the child, what it is to run; the parent tells how each child ended, and stays here."
    for line in sys.stdin:
        if not (child := os.fork()): return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


def become(job: dict) -> None:
    "Be what `python -c` is when its code begins."
    import numpy as np
    random.seed(), np.random.seed()                         # each its own chance, as after a start
    for number, path, how in (0, os.devnull, os.O_RDONLY), (1, job["out"], os.O_WRONLY | os.O_CREAT), (2, job["err"], os.O_WRONLY | os.O_CREAT):
        opened = os.open(path, how, 0o600)
        os.dup2(opened, number), os.close(opened)
    os.chdir(job["cwd"])
    sys.argv, sys.path[0] = ["-c", *job["arguments"]], ""
    if job["largest_file"]: resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (job["largest_file"],))


if __name__ == "__main__":
    for name in LIBRARIES: import_module(name)
    job, this = next_job(), sys.modules["__main__"]
    become(job)
    sys.modules["__main__"] = ModuleType("__main__")
    exec(job["code"], vars(sys.modules["__main__"]))        # the last line: exceptions and exits end the process as they end any

"""Run code as `python -c` does, but in a process forked from one that has loaded the libraries: it starts in no time.

What such a process shares with its sisters is what the libraries are after import, and the order of sets of strings.
Where that matters (two runs that must agree, a start that must work) a test starts Python itself, through `subprocess`.
"""

import os
import random
import resource
import sys
from multiprocessing import forkserver, get_context
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "accelerate", "sklearn.datasets", "sklearn.svm"])


def become(code, arguments, cwd, largest_file, folder, environment):
    "In the child: be what `python -c` is when its code begins."
    import numpy as np
    import torch
    for number, name in (1, "out"), (2, "err"): os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    random.seed()
    np.random.seed()                                        # each its own chance, as after a start
    os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    if largest_file: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    exec(code, vars(sys.modules["__main__"]))


def run(code: str, *arguments, cwd=ROOT, largest_file: int = 0, **environment) -> CompletedProcess:
    "What `subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True)` gives, as text, offline."
    with patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}): forkserver.ensure_running()
    with TemporaryDirectory() as folder:
        told = (code, list(map(str, arguments)), str(cwd), largest_file, folder, environment)
        child = CONTEXT.Process(target=become, args=told)
        child.start()
        try: child.join()
        finally: child.kill()                               # a test that ran out of time; nothing, where it has ended
        said = [Path(folder, name).read_text() for name in ("out", "err")]
        return CompletedProcess([code, *arguments], child.exitcode, *said)

"JupyterLab and Voila as processes of their own, started with the options of the Makefile."

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent


def until(what: str, condition, seconds: float, pause: float = .1):
    "Wait until `condition()` gives something, asking after every `pause`, and return it."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition(): return found
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds} s")


def make_options(program: str) -> list[str]:
    "The options with which the Makefile starts jupyter or voila."
    line = re.search(rf"^\t(?:@| *)\$\(BIN\)/{program} (?!trust)(.*?)\$[($]", (ROOT/"Makefile").read_text(), re.M)[1]
    return [word for word in shlex.split(line) if word.startswith("--")]


@contextmanager
def serve(module: str, room: Path, tmp: Path, *options: str, env=None, ready: str = "/"):
    "A server over the folder `room`, with a home of its own under `tmp`, until the block ends; its address."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp/"home").mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    clean |= {"HOME": str(tmp/"home"), "PYTHONPATH": str(ROOT)} | (env or {})
    address, log = f"http://127.0.0.1:{port}", tmp/f"{module}.log"

    def up():
        assert server.poll() is None, log.read_text()
        try: return urlopen(address + ready, timeout=5)
        except HTTPError: return True                            # any answer will do
        except (URLError, OSError): return False

    command = [sys.executable, "-m", module, *options, f"--port={port}", "--no-browser"]
    with log.open("w") as out, subprocess.Popen(
            command, cwd=room, env=clean, stdout=out, stderr=subprocess.STDOUT) as server:
        try:
            until(f"{module} answers", up, 60)
            yield address
        finally:
            server.terminate()                                   # it ends its kernels itself
            try: server.wait(20)
            except subprocess.TimeoutExpired: server.kill()


def serve_lab(room: Path, tmp: Path, token: str = ""):
    "JupyterLab as `make lab` starts it, with a token known beforehand, or none."
    options = [o for o in make_options("jupyter") if not o.startswith("--LabApp.default_url")]
    return serve("jupyterlab", room, tmp, *options, "--allow-root", "--ServerApp.port_retries=0",
                 f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={room}",
                 "--LabApp.expose_app_in_browser=True",
                 "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                 env={"JUPYTER_CONFIG_DIR": str(tmp/"config")}, ready="/api/status")


def serve_voila(room: Path, tmp: Path, notebook: str = "dashboard.ipynb"):
    "Voila over one notebook of `room`, as `make app` starts it."
    quiet = "/voila/static/"                                     # the page itself would start a kernel
    return serve("voila", room, tmp, notebook, *make_options("voila"), ready=quiet)

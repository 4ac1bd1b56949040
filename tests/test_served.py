"JupyterLab and Voila answer to names of this machine, and to no name that a foreign page points at it (DNS rebinding)."

import base64
import json
import re
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from served import serve_lab, serve_voila

nbformat = pytest.importorskip("nbformat", reason="the notebook tools are not installed (pip install -e '.[dev]')")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed (pip install -e '.[dev]')")
pytest.importorskip("voila", reason="voila is not installed (pip install -e '.[dev]')")

OURS = ("localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}")
FOREIGN = ("evil.example:{port}", "evil.example", "localhost.evil.example:{port}", "192.0.2.1:{port}")


def ask(address, host, path, method="GET", **headers):
    "Status and body of a request whose Host and Origin are `host`."
    place = urlsplit(address)
    host = host.format(port=place.port)
    connection = HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request(method, path, headers={"Host": host, "Origin": f"http://{host}", **headers})
    answer = connection.getresponse()
    body = b"" if answer.status == 101 else answer.read()
    connection.close()
    return answer.status, body.decode(errors="replace")


def upgrade(address, host, kernel, **headers):
    "What a kernel's channel answers to a browser that wants to open it."
    headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode()}
    return ask(address, host, f"/api/kernels/{kernel}/channels", **headers)[0]


@pytest.fixture
def room(tmp_path):
    room = tmp_path/"room"
    room.mkdir()
    cells = [nbformat.v4.new_code_cell("print(6 * 7)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), room/"page.ipynb")
    return room


@pytest.mark.timeout(300)
def test_voila_answers_to_this_machine_alone(room, tmp_path):
    with serve_voila(room, tmp_path, "page.ipynb") as address:
        status, page = ask(address, "localhost:{port}", "/")
        assert status == 200 and "42" in page
        kernel = re.search(r'"kernelId":\s*"([0-9a-f-]{36})"', page)[1]
        for host in OURS:
            assert ask(address, host, f"/api/kernels/{kernel}")[0] == 200, host
            assert upgrade(address, host, kernel) == 101, host
        for host in FOREIGN:
            for path in ("/", f"/api/kernels/{kernel}", "/login"):
                assert ask(address, host, path)[0] == 403, (host, path)
            assert ask(address, host, f"/voila/api/shutdown/{kernel}", "POST")[0] == 403, host
            assert upgrade(address, host, kernel) == 403, host
        assert ask(address, "localhost:{port}", f"/api/kernels/{kernel}")[0] == 200           # it lives


@pytest.mark.timeout(300)
def test_lab_answers_to_this_machine_alone(room, tmp_path):
    "Not even with the token."
    token = {"Authorization": "token secret"}
    with serve_lab(room, tmp_path, token="secret") as address:
        kernel = json.loads(ask(address, OURS[0], "/api/kernels", "POST", **token)[1])["id"]
        for host in OURS:
            for path in ("/lab", "/api/contents/page.ipynb"): assert ask(address, host, path, **token)[0] == 200, host
            assert upgrade(address, host, kernel, **token) == 101, host
        for host in FOREIGN:
            for path in ("/lab", "/api/contents/page.ipynb", "/files/page.ipynb", f"/api/kernels/{kernel}"):
                assert ask(address, host, path, **token)[0] == 403, (host, path)
            assert upgrade(address, host, kernel, **token) == 403, host

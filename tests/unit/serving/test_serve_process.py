"""The server as a process: it starts without torch, listens on this machine alone, and finishes accepted requests when it is
stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import run_builder
import uvicorn

import graftwork as gw
from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, FileFormatError

ROW = {"age": 33.0, "city": "Rome", "since": None, "id": 3}
SERVER = """
import sys, time
from pathlib import Path
from graftwork.serving import reading
from graftwork.serving.serve import serve

plain = reading.TableReader.encode
def late(self, rows):
    while sys.argv[2] and Path(sys.argv[2]).exists():
        time.sleep(0.01)
    return plain(self, rows)
reading.TableReader.encode = late

heavy = ("torch", "sklearn", "timm", "transformers", "lightgbm", "plotly")
serve(sys.argv[1], port=0, threads=1, max_batch=1, on_ready=lambda address: print(address, flush=True))
print("stopped", [name for name in sys.modules if name.partition(".")[0] in heavy], flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_builder.write_table_run(tmp_path_factory.mktemp("serve"))


@contextlib.contextmanager
def server(folder: Path, gate: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server whose answers wait while the file ``gate`` is there."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), gate], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def wait_until_refused(address: str) -> None:
    """Return once the server takes no new connection; it looks at signals several times a second, so not at once."""
    end = time.monotonic() + 120
    with contextlib.suppress(httpx.TransportError):
        while time.monotonic() < end:
            httpx.get(f"{address}/health", timeout=5)
            time.sleep(0.01)
        pytest.fail("the stopped server still takes new connections")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_finishes_what_it_accepted(folder: Path, tmp_path: Path, sign: signal.Signals) -> None:
    gate = tmp_path / "gate"
    with server(folder, str(gate)) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        gate.touch()
        answers: list[httpx.Response] = []
        calls = [
            threading.Thread(target=lambda: answers.append(httpx.post(f"{address}/predict", json={"rows": [ROW]}, timeout=60)))
            for _ in range(5)
        ]
        for call in calls:
            call.start()
        end = time.monotonic() + 120
        while "graftwork_requests_in_work 5.0" not in httpx.get(f"{address}/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(sign)
        wait_until_refused(address)
        gate.unlink()
        for call in calls:
            call.join(60)
        assert [answer.status_code for answer in answers] == [200] * 5
        assert process.communicate(timeout=60)[0].strip() == "stopped []", "and no torch was imported"
        assert process.returncode == 0


def test_wrong_settings_are_named_before_anything_loads(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_batch must be from 1 to 65536; got 0"):
        gw.serve(folder, max_batch=0)
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'max_bach'.*The limits are: max_batch"):
        gw.serve(folder, max_bach=1)
    with pytest.raises(ConfigError, match="port must be from 0"):
        gw.serve(folder, port=70_000)
    with pytest.raises(ConfigError, match="visible ASCII"):
        gw.serve(folder, token="two words")
    with pytest.raises(ConfigError, match=r"Cannot listen on 203\.0\.113\.1:0"):
        gw.serve(folder, host="203.0.113.1", port=0)
    with pytest.raises(FileFormatError, match="not a run folder"):
        gw.serve(tmp_path, port=0)


def test_a_port_that_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server(folder) as (_, address):
        assert main(["serve", str(folder), "--port", address.rpartition(":")[2]]) == 2
        assert "Choose another --port" in capsys.readouterr().err


def test_the_verb_takes_limits_names_and_the_token_from_the_environment(folder: Path) -> None:
    command = [sys.executable, "-m", "graftwork", "serve", str(folder), "--port", "0", "--max-rows", "1", "--threads", "1"]
    command += ["--allowed-hosts", "a.example.org, *.example.net"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"GRAFTWORK_TOKEN": "secret"})
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "answers at http://127.0.0.1:" in line
        address = line.split(" answers at ")[1].split()[0]
        assert httpx.post(f"{address}/predict", json={"rows": [ROW]}).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert httpx.post(f"{address}/predict", json={"rows": [ROW]}, headers=headers).status_code == 200
        assert httpx.post(f"{address}/predict", json={"rows": [ROW] * 2}, headers=headers).status_code == 422
        names = {"x.example.net": 200, "a.example.org": 200, "b.example.org": 421}
        assert {name: httpx.get(f"{address}/health", headers={"Host": name}).status_code for name in names} == names
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_answers_do_not_wait_for_acknowledgements(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Asyncio switches Nagle's algorithm off for sockets that say that they speak TCP, and for those alone."""
    listening: list[socket.socket] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: listening.extend(sockets))
    gw.serve(folder, port=0)
    assert [each.proto for each in listening] == [socket.IPPROTO_TCP]

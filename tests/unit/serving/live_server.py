"""A server on the loopback address in a thread of this process, and sockets that speak to it byte by byte."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.serving.engine import Engine
from graftwork.serving.hosts import AllowedHosts
from graftwork.serving.limits import ServeLimits
from graftwork.serving.serve import make_server

ROW = {"age": 33.0, "city": "Rome", "since": None, "id": 3}
PATIENCE = 60.0
"""Seconds after which a test gives up."""


@dataclass
class Live:
    """A running server."""

    port: int
    engine: Engine
    server: Any
    thread: threading.Thread

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Begin to stop, as a signal does."""
        self.server.should_exit = True

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ask(self, request: bytes, *, on: socket.socket | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send bytes and return status, headers and body of the answer."""
        with contextlib.nullcontext(on) if on is not None else self.connect() as sock:
            sock.sendall(request)
            return read_answer(sock)

    def closed(self, reason: str) -> float:
        """Return how many connections the server has closed for a reason."""
        return self.engine.metrics.registry.get_sample_value("graftwork_connections_closed_total", {"reason": reason}) or 0.0


def predict_request(rows: int = 1, *, host: str = "127.0.0.1", close: bool = False) -> bytes:
    body = json.dumps({"rows": [ROW] * rows}).encode()
    end = "Connection: close\r\n" if close else ""
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{end}\r\n"
    return head.encode() + body


def get_request(path: str, *, host: str = "127.0.0.1") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return one answer.

    Raises:
        ConnectionError: If the connection ends before the answer does.
    """
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(sock)
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += _some(sock)
    return int(lines[0].split()[1]), headers, body


def _some(sock: socket.socket) -> bytes:
    got = sock.recv(65_536)
    if not got:
        raise ConnectionError("the server closed the connection before its answer was whole")
    return got


def is_closed(sock: socket.socket) -> bool:
    """Read what there still is, and return whether the other side closes the connection."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.005)


@contextlib.contextmanager
def live(folder: Path, *, hosts: tuple[str, ...] = (), bound: str = "127.0.0.1", **limits: Any) -> Iterator[Live]:
    """Serve a run; at the end the server is stopped, and must stop."""
    engine = Engine(folder, limits=ServeLimits(**limits), threads=1)
    engine.warm_up()
    ready = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind((bound, 0))
        server = make_server(engine, listener, hosts=AllowedHosts(hosts, bound), on_ready=lambda _: ready.set())
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        port = listener.getsockname()[1]
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            yield Live(port, engine, server, thread)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            engine.close()
            assert not thread.is_alive()

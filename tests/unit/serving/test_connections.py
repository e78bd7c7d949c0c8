"""Clients that never finish hold no connection for long, and whoever sends whole requests is answered meanwhile."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_builder
from live_server import PATIENCE, Live, get_request, is_closed, live, predict_request, read_answer, wait_until

from graftwork.core.errors import ConfigError
from graftwork.serving import connections

HALF_A_HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
HALF_A_BODY = predict_request()[:-10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_builder.write_table_run(tmp_path_factory.mktemp("connections"))


@contextlib.contextmanager
def crowd(server: Live, size: int, begin: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that send the beginning of a request and no more."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(server.connect()) for _ in range(size)]
        for sock in sockets:
            with contextlib.suppress(ConnectionError):  # some are closed at once
                sock.sendall(begin)
        yield sockets


def test_headers_must_come_in_time(folder: Path) -> None:
    with live(folder, header_timeout=0.2) as server:
        with crowd(server, 3, HALF_A_HEAD) as sockets:
            answers = [read_answer(sock) for sock in sockets]
            assert [status for status, _, _ in answers] == [408] * 3
            assert {headers["connection"] for _, headers, _ in answers} == {"close"}
            assert all(is_closed(sock) for sock in sockets)
        with crowd(server, 1, b"") as sockets:
            read_answer(sockets[0])
            assert is_closed(sockets[0]), "a connection without any byte ends as well"
        assert server.closed("slow head") == 4


def test_headers_that_trickle_have_no_more_time(folder: Path) -> None:
    with live(folder, header_timeout=0.3) as server, server.connect() as sock:
        sock.sendall(HALF_A_HEAD)
        sock.settimeout(0.02)
        for _ in range(1_000):
            try:
                sock.sendall(b"a")
                if not sock.recv(1_000):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        wait_until(lambda: server.closed("slow head") == 1, "still open")
        assert is_closed(sock)


def test_a_second_request_has_its_own_time(folder: Path) -> None:
    with live(folder, header_timeout=2.0) as server, server.connect() as sock:
        assert server.ask(predict_request(), on=sock)[0] == 200
        sock.sendall(HALF_A_HEAD)
        assert read_answer(sock)[0] == 408
        assert is_closed(sock)


def test_a_body_must_come_in_time(folder: Path) -> None:
    with live(folder, timeout=0.3) as server:
        with crowd(server, 2, HALF_A_BODY) as sockets:
            answers = [read_answer(sock) for sock in sockets]
            assert [status for status, _, _ in answers] == [408] * 2
            assert all(b"a whole body in 0.3 s" in body for _, _, body in answers)
            assert all(is_closed(sock) for sock in sockets)
        # Nobody reads the body of a request that is refused before.
        with crowd(server, 1, HALF_A_BODY.replace(b"/predict", b"/nothing")) as sockets:
            assert read_answer(sockets[0])[0] == 404
            assert is_closed(sockets[0])
        assert server.closed("slow body") == 1


def test_slow_bodies_take_no_place_in_the_queue(folder: Path) -> None:
    with live(folder, max_queue=2) as server, crowd(server, 6, HALF_A_BODY) as sockets:
        assert server.ask(predict_request())[0] == 200
        for sock in sockets:
            sock.sendall(predict_request()[-10:])
        # Six at once may be too many for the queue, but none of them is cut.
        assert {read_answer(sock)[0] for sock in sockets} <= {200, 503}


@pytest.mark.parametrize("begin", [b"", HALF_A_HEAD, HALF_A_BODY], ids=["silent", "half a head", "half a body"])
def test_whole_requests_are_answered_while_a_crowd_waits(folder: Path, begin: bytes) -> None:
    with live(folder, max_connections=12) as server, crowd(server, 40, begin):
        for _ in range(5):
            assert server.ask(predict_request())[0] == 200
        assert server.closed("full") >= 28
        wait_until(lambda: len(server.server.server_state.connections) <= 12, "too many connections")


def test_the_one_too_many_is_refused_while_all_others_are_at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(folder, max_connections=2) as server, server.connect() as one, server.connect() as two:
        encode = server.engine.reader.encode
        gate = threading.Event()

        def late(rows: Any) -> Any:
            assert gate.wait(PATIENCE)
            return encode(rows)

        monkeypatch.setattr(server.engine.reader, "encode", late)
        one.sendall(predict_request())
        two.sendall(predict_request())
        wait_until(lambda: server.engine.requests_in_work == 2, "not at work")
        with server.connect() as third:
            status, headers, _ = read_answer(third)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        gate.set()
        assert read_answer(one)[0] == read_answer(two)[0] == 200


def test_an_answer_that_nobody_takes(folder: Path) -> None:
    with live(folder, timeout=3.0) as server, server.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            # Far more answers than the buffers of both sides hold.
            sock.sendall(get_request("/openapi.json") * 20_000)
        wait_until(lambda: server.closed("slow reader") == 1, "still open")
        assert server.ask(predict_request())[0] == 200


def test_bodies_of_all_requests_have_a_limit(folder: Path) -> None:
    rows = 200
    size = len(predict_request(rows))
    with live(folder, max_body_bytes=size, max_bodies_bytes=2 * size) as server:
        with crowd(server, 5, predict_request(rows)[:-1]) as sockets:
            answers = [read_answer(sock) for sock in sockets[2:]]
            assert [status for status, _, _ in answers] == [503] * 3
            assert b"bytes in work" in answers[0][2]
            for sock in sockets[:2]:
                sock.sendall(predict_request(rows)[-1:])
            assert [read_answer(sock)[0] for sock in sockets[:2]] == [200, 200]
        assert server.ask(predict_request(rows))[0] == 200, "what was held is free again"


def test_the_limit_stays_below_that_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [1_024, 1_024]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.__setitem__(slice(None), pair))
    room = connections.connection_limit(2_000, 100)
    assert room < 1_024 - 100 - connections.ACCEPTED_AT_ONCE
    limits[:] = [1_024, 4_096]
    assert connections.connection_limit(2_000, 100) == 2_000, "the soft limit is raised"
    assert 2_100 < limits[0] <= 4_096
    limits[:] = [16, 16]
    with pytest.raises(ConfigError, match="ulimit -n"):
        connections.connection_limit(2_000, 100)


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
from graftwork.serving.serve import serve
serve(sys.argv[1], port=0, threads=1, on_ready=lambda address: print(address, flush=True))
"""


def test_a_crowd_beyond_the_limit_of_descriptors(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FEW_FILES, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        server = Live(port, None, None, None)  # type: ignore[arg-type]
        with crowd(server, 600, HALF_A_HEAD):
            assert server.ask(predict_request())[0] == 200
        process.terminate()
        log = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert log.startswith("note: at most 100 connections at once")
    assert len(log) < 2_000, log[:2_000]

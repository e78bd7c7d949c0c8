"""A connection ends with its writing side: what was sent is read by the client, and a request that has come is not thrown away."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import run_builder
from live_server import PATIENCE, Live, get_request, is_closed, live, predict_request, read_answer, wait_until

from graftwork.serving import connections, stopping


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_builder.write_table_run(tmp_path_factory.mktemp("leaving"))


@pytest.fixture
def server(folder: Path) -> Iterator[Live]:
    with live(folder) as server:
        yield server


def in_the_loop(server: Live, do: Callable[[], Any], after: threading.Event) -> None:
    """Let the event loop wait for something and then do something, before it reads anything."""

    def wait_and_do() -> None:
        assert after.wait(PATIENCE)
        do()

    server.server._watch.get_loop().call_soon_threadsafe(wait_and_do)


def _late(server: Live) -> None:
    server.server._connections.close_late(time.monotonic() + 10 * PATIENCE)


def _retire(server: Live) -> None:
    server.server._connections.retire(time.monotonic())


def _keep_alive_is_over(server: Live) -> None:
    for connection in list(server.server.server_state.connections):
        connection.timeout_keep_alive_handler()


@pytest.mark.parametrize("end", [_late, _retire, _keep_alive_is_over])
def test_a_request_that_has_come_and_was_not_read_is_answered(server: Live, end: Callable[[Live], None]) -> None:
    with server.connect() as sock:
        assert server.ask(predict_request(), on=sock)[0] == 200
        sent = threading.Event()
        in_the_loop(server, lambda: end(server), sent)
        sock.sendall(predict_request())
        sent.set()
        assert read_answer(sock)[0] == 200


@pytest.mark.parametrize("end", [_late, _retire, _keep_alive_is_over])
def test_an_idle_connection_ends(server: Live, end: Callable[[Live], None]) -> None:
    with server.connect() as sock:
        assert server.ask(predict_request(), on=sock)[0] == 200
        gate = threading.Event()
        in_the_loop(server, lambda: end(server), gate)
        gate.set()
        assert sock.recv(1) == b"", "an end, no reset"


def test_who_makes_room_is_not_one_whose_request_has_come(folder: Path) -> None:
    with live(folder, max_connections=2) as server, server.connect() as first, server.connect() as second:
        for sock in (first, second):
            assert server.ask(get_request("/health"), on=sock)[0] == 200
        sent = threading.Event()
        in_the_loop(server, lambda: None, sent)
        first.sendall(predict_request())
        with server.connect() as third:
            third.sendall(predict_request())
            sent.set()
            assert read_answer(first)[0] == 200
            assert read_answer(third)[0] == 200
            assert is_closed(second)


def test_a_client_in_the_middle_of_a_head_hears_why(server: Live) -> None:
    with server.connect() as sock:
        sock.sendall(predict_request()[:20])
        wait_until(lambda: any(one.conn.trailing_data[0] for one in server.server._connections._open), "nothing read")
        server.stop()
        status, headers, body = read_answer(sock)
        assert (status, headers["connection"]) == (503, "close")
        assert b"The server is stopping." in body


def test_a_client_that_still_sends_reads_its_answer(server: Live) -> None:
    """Without an end in two steps the system resets such a connection, and the answer may be lost."""
    size = 8 << 20
    head = f"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode()
    with server.connect() as sock:
        sock.sendall(head)
        wait_until(lambda: server.server._connections.num_leaving == 1, "not answered")
        for _ in range(size >> 16):
            sock.sendall(b" " * (1 << 16))
        assert read_answer(sock)[0] == 404
        assert sock.recv(1) == b""


def test_who_does_not_close_is_not_waited_for_long(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LEAVE_SECONDS", 0.1)
    with server.connect() as sock:
        assert server.ask(predict_request(close=True), on=sock)[0] == 200
        wait_until(lambda: not server.server.server_state.connections, "still there")
        assert sock.recv(1) == b""


SIZE = 64 << 20
"""More bytes than the system takes for a client that does not read."""


def _write_much_and_close(server: Live) -> None:
    (connection,) = server.server._connections._open
    connection.transport.write(bytes(SIZE))
    connection.transport.close()
    connection.transport.write(b"too late")


def test_what_was_written_before_the_end_is_read(server: Live) -> None:
    with server.connect() as sock:
        assert server.ask(get_request("/health"), on=sock)[0] == 200
        gate = threading.Event()
        in_the_loop(server, lambda: _write_much_and_close(server), gate)
        gate.set()
        left = SIZE
        while left:
            got = len(sock.recv(1 << 20))
            assert 0 < got <= left
            left -= got
        assert sock.recv(1) == b""
        wait_until(lambda: server.server._connections.num_open == 0, "still counted")
    wait_until(lambda: not server.server.server_state.connections, "still there")


def test_who_does_not_take_the_rest_counts_until_it_is_cut_off(folder: Path) -> None:
    with live(folder, timeout=3.0) as server, server.connect() as sock:
        assert server.ask(get_request("/health"), on=sock)[0] == 200
        gate = threading.Event()
        in_the_loop(server, lambda: _write_much_and_close(server), gate)
        gate.set()
        assert sock.recv(1)
        assert server.server._connections.num_leaving == 0
        assert server.server._connections.num_open == 1
        wait_until(lambda: server.closed("slow reader") == 1, "still open")
        wait_until(lambda: not server.server.server_state.connections, "still there")


def test_who_reads_a_body_learns_that_its_connection_ends(folder: Path) -> None:
    with live(folder, timeout=10 * PATIENCE, header_timeout=10 * PATIENCE) as server, server.connect() as sock:
        head = (
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sock.sendall(head + b"5\r\n12345\r\n")
        wait_until(lambda: bool(server.server.server_state.tasks), "not at work")
        sock.sendall(b"no length\r\n")
        assert read_answer(sock)[0] == 400
        wait_until(lambda: not server.server.server_state.tasks, "it still waits for the body")


def test_few_wait_for_their_clients_at_once(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_LEAVING", 2)
    socks = [server.connect() for _ in range(6)]
    try:
        for sock in socks:
            assert server.ask(predict_request(close=True), on=sock)[0] == 200
        wait_until(lambda: len(server.server.server_state.connections) == 2, "too many")
        assert server.server._connections.num_leaving == 2
        assert server.server._connections.num_open == 0
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has such packet filters")
def test_nobody_new_is_let_in_and_who_is_there_stays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as before:
            stopping._let_nobody_in(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), timeout=0.3)
            before.sendall(b"a")
            with listener.accept()[0] as accepted:
                assert accepted.recv(1) == b"a"
                accepted.sendall(b"b")
            assert before.recv(1) == b"b"

"""A server that stops answers what it accepted, and refuses the rest with words: nobody is cut off."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_builder
from live_server import PATIENCE, Live, get_request, is_closed, live, predict_request, read_answer, wait_until

from graftwork.serving import stopping


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_builder.write_table_run(tmp_path_factory.mktemp("stopping"))


@contextlib.contextmanager
def shut_gate(server: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the model wait until the gate that is yielded is set."""
    gate, encode = threading.Event(), server.engine.reader.encode

    def late(rows: object) -> object:
        assert gate.wait(PATIENCE)
        return encode(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(server.engine.reader, "encode", late)
    try:
        yield gate
    finally:
        gate.set()


def begin_to_stop(server: Live) -> None:
    server.stop()
    wait_until(lambda: server.engine.is_stopping, "it does not stop")


def test_what_was_accepted_is_answered_and_the_rest_refused_with_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LINGER_SECONDS", PATIENCE)
    with live(folder) as server, shut_gate(server, monkeypatch) as gate, contextlib.ExitStack() as stack:
        idle, slow, busy = ([stack.enter_context(server.connect()) for _ in range(4)] for _ in range(3))
        for sock in idle:
            assert server.ask(get_request("/health"), on=sock)[0] == 200
        for sock in slow:
            sock.sendall(predict_request()[:-10])
        for sock in busy:
            sock.sendall(predict_request())
        wait_until(lambda: server.engine.requests_in_work == 4, "not at work")
        begin_to_stop(server)
        late = [stack.enter_context(server.connect()) for _ in range(4)]
        for sock in (*idle, *late):
            status, headers, body = server.ask(predict_request(), on=sock)
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "5")
            assert json.loads(body)["error"].startswith("The server is stopping.")
            assert is_closed(sock)
        assert server.ask(get_request("/health"))[0] == 503, "whoever balances loads must learn of it"
        for sock in slow:
            sock.sendall(predict_request()[-10:])
        gate.set()
        for sock in (*slow, *busy):
            status, headers, _ = read_answer(sock)
            assert (status, headers["connection"]) == (200, "close")
            assert is_closed(sock)


def test_connections_that_only_the_system_has_accepted_are_answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = stopping.Server._close
    waiting = []

    async def close_late(self: stopping.Server, listener: object) -> None:
        # The event loop does not run meanwhile, so these wait in the system's queue.
        for _ in range(20):
            waiting.append(server.connect())
            waiting[-1].sendall(predict_request())
        await close(self, listener)  # type: ignore[arg-type]

    monkeypatch.setattr(stopping.Server, "_close", close_late)
    with contextlib.ExitStack() as stack, live(folder) as server:
        idle = stack.enter_context(server.connect())
        begin_to_stop(server)
        server.thread.join(PATIENCE)
        assert len(waiting) == 20
        for sock in waiting:
            stack.enter_context(sock)
            assert read_answer(sock)[0] == 503
        assert is_closed(idle)


def test_none_of_many_clients_is_cut(folder: Path) -> None:
    """Half of the clients keep their connection, half open one for every request; all go on while the server stops."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def ask_on_and_on(server: Live, keep: bool) -> None:
        while True:
            try:
                sock = server.connect()
            except ConnectionRefusedError:
                with lock:
                    seen["refused"] += 1
                return
            with sock:
                while True:
                    try:
                        sock.sendall(predict_request(close=not keep))
                        status, headers, _ = read_answer(sock)
                        outcome = str(status)
                    except ConnectionError as error:
                        outcome, headers = f"cut: {error!r}", {"connection": "close"}
                    with lock:
                        seen[outcome] += 1
                    if headers.get("connection") == "close":
                        break

    with live(folder) as server:
        clients = [threading.Thread(target=ask_on_and_on, args=(server, number % 2 == 0), daemon=True) for number in range(40)]
        for client in clients:
            client.start()
        wait_until(lambda: seen["200"] > 80, "no answers")
        server.stop()
        for client in clients:
            client.join(PATIENCE)
        assert seen["refused"] == 40
        assert set(seen) == {"200", "503", "refused"}, seen


def test_requests_that_take_longer_than_the_time_to_stop_get_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(folder, stop_timeout=0.3) as server, shut_gate(server, monkeypatch) as gate, server.connect() as sock:
        sock.sendall(predict_request())
        wait_until(lambda: server.engine.requests_in_work == 1, "not at work")
        begin_to_stop(server)
        status, headers, _ = read_answer(sock)
        assert (status, headers["connection"]) == (503, "close")
        gate.set()


def test_a_server_without_connections_stops_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LINGER_SECONDS", 10 * PATIENCE)
    with live(folder, stop_timeout=10 * PATIENCE) as server:
        server.stop()
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()

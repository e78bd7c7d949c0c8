"""The connections of a server: how many there may be, and how long a client may keep one waiting. No torch.

A connection waits for its client while the head of a request (request line and headers) or its body is incomplete, and while an
answer is not taken. Each of these has an end, so that clients that never finish hold nothing for long. When there are as many
connections as may be, the one that has waited longest for its client makes room: whoever sends whole requests gets in. How one
ends is in :mod:`graftwork.serving.leaving`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from graftwork.core.errors import ConfigError
from graftwork.serving.leaving import LEAVE_SECONDS, MOST_LEAVING, PoliteTransport

__all__ = ["ACCEPTED_AT_ONCE", "Connection", "Connections", "connection_limit"]

ACCEPTED_AT_ONCE = 64
"""Connections that the event loop accepts before it does anything else."""
_SPARE = 4 * ACCEPTED_AT_ONCE + MOST_LEAVING
"""Descriptors for connections that are accepted, and refused some turns of the event loop later, and for those that leave."""
_FEWEST = 8
_LOOKED_AT = 32
_PROGRESS = 64 << 10
"""Bytes of an answer that a client must take within the time limit, or the rest of it."""
_ANSWER = (
    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\nCache-Control: no-store\r\n"
    b"Retry-After: 1\r\n\r\n%s"
)


def connection_limit(wanted: int, kept_free: int) -> int:
    """Return how many connections a server can have, and raise the soft limit of descriptors where that helps.

    Args:
        wanted: Most connections, at least 1.
        kept_free: Descriptors for libraries, the model and uploads; those of connections that are about to be refused come on top.

    Returns:
        ``wanted``, or less if the system's limit of descriptors is too low for it.

    Raises:
        ConfigError: If the limit leaves no room for a server.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + kept_free + _SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):  # containers may forbid it; then the old limit counts
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = wanted if soft == resource.RLIM_INFINITY else soft - kept_free - _SPARE
    # With a low limit, most of what is kept free is not needed: there are fewer connections, too.
    room = max(room, soft // 4)
    if room < _FEWEST:
        raise ConfigError(f"A process may open {soft} files here, too few for a server. Raise the limit with: ulimit -n 1024")
    return min(wanted, room)


class Connections:
    """What the connections of one server have in common.

    Args:
        most: Most connections that are open at once.
        head_seconds: From the opening of a connection, or the last answer on it, to the end of a request's headers.
        body_seconds: From there to the end of its body.
        write_seconds: In which a client takes 64 KB of an answer, or its rest.
        on_close: Called with the reason whenever a connection is closed because of one of these.
    """

    def __init__(
        self, most: int, *, head_seconds: float, body_seconds: float, write_seconds: float, on_close: Callable[[str], None]
    ) -> None:
        self.most = most
        self._head_seconds = head_seconds
        self._body_seconds = body_seconds
        self._write_seconds = write_seconds
        self._on_close = on_close
        self._open: set[Connection] = set()
        # Those that wait for their client, since when; the first one has waited longest.
        self._waiting: dict[Connection, float] = {}
        self._unread: dict[Connection, tuple[float, int]] = {}
        # Those that have got all that they get, since when.
        self._leaving: dict[Connection, float] = {}

    @property
    def num_open(self) -> int:
        """Open connections, without those that leave."""
        return len(self._open)

    @property
    def num_leaving(self) -> int:
        """Connections whose client has not closed its side yet."""
        return len(self._leaving)

    @property
    def num_in_work(self) -> int:
        """Connections whose request has not been answered, or whose answer has not been taken."""
        return sum(not connection.is_idle for connection in self._open)

    def add(self, connection: Connection, now: float) -> None:
        """Take a new connection; if there are too many, close the one that has waited longest, or else this one."""
        self._open.add(connection)
        if len(self._open) > self.most:
            # The system may have the request of an idle one already; a few are looked at, or a flood would make this slow.
            first = list(itertools.islice(self._waiting, _LOOKED_AT))
            # If all others are at work, this one is the one too many.
            victim = next((one for one in first if not one.has_come), first[0] if first else connection)
            self._close(
                victim, "full", "503 Service Unavailable", "The server has too many connections. Ask again a little later."
            )
            if victim is connection:
                return
        self._waiting[connection] = now

    def note(self, connection: Connection, now: float, *, waits: bool) -> None:
        """Note that a connection begins, or no longer has, to wait for its client."""
        self._waiting.pop(connection, None)
        if waits and connection in self._open:
            self._waiting[connection] = now

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._unread.pop(connection, None)
        self._leaving.pop(connection, None)

    def let_leave(self, connection: Connection, now: float) -> None:
        """Note that nothing more is written to a connection; if too many leave, close the one that takes longest.

        It counts as open until its client has taken all that was written.
        """
        if connection.transport.get_write_buffer_size():
            self._waiting.pop(connection, None)
            return
        self.remove(connection)
        self._leaving[connection] = now
        if len(self._leaving) > MOST_LEAVING:
            next(iter(self._leaving)).end()

    def retire(self, now: float) -> None:
        """Let the idle connections leave, but for those with something to read."""
        self._let_taken_leave(now)
        for connection in list(self._open):
            if connection.is_idle and not connection.has_come:
                connection.retire()

    def _let_taken_leave(self, now: float) -> None:
        for connection in list(self._open):
            if connection.transport.is_leaving:
                self.let_leave(connection, now)

    def end_leaving(self) -> None:
        """Close the connections that leave."""
        for connection in list(self._leaving):
            connection.end()

    def _close(self, connection: Connection, reason: str, status: str, sentence: str) -> None:
        # At once, not when the event loop gets to it: the next one must not be closed in its place.
        self.remove(connection)
        self._on_close(reason)
        connection.leave(status, sentence)

    async def watch(self) -> None:
        """Close what waits too long, until this is cancelled."""
        shortest = min(self._head_seconds, self._body_seconds, self._write_seconds)
        while True:
            await asyncio.sleep(min(1.0, shortest / 4))
            self.close_late(asyncio.get_running_loop().time())

    def close_late(self, now: float) -> None:
        """Close the connections that have waited too long for their client."""
        for connection, since in list(self._waiting.items()):
            in_body = connection.is_in_body
            # What has come in time may be read late: the server can have been busy itself.
            if connection.has_come:
                continue
            if now - since > (self._body_seconds if in_body else self._head_seconds):
                self._close(
                    connection, "slow body" if in_body else "slow head", "408 Request Timeout", "The request came too slowly."
                )
        self._let_taken_leave(now)
        for connection, since in list(self._leaving.items()):
            if now - since > LEAVE_SECONDS:
                connection.end()
        for connection in list(self._open):
            size = connection.transport.get_write_buffer_size()
            mark, before = self._unread.get(connection, (now, size))
            if not size or before - size >= _PROGRESS or size > before:
                mark, before = now, size
            if size:
                self._unread[connection] = (mark, before)
            else:
                self._unread.pop(connection, None)
            if now - mark > self._write_seconds:
                self._on_close("slow reader")
                connection.transport.abort()


class Connection(H11Protocol):
    """One connection, as uvicorn makes it; the class of a server has its :class:`Connections`."""

    shared: Connections
    transport: PoliteTransport  # type: ignore[assignment]
    _state: tuple[bool, bool] = (True, False)

    @classmethod
    def of(cls, shared: Connections) -> type[Connection]:
        """Return the class for the connections of one server."""
        return type("ServerConnection", (cls,), {"shared": shared})

    @property
    def is_in_body(self) -> bool:
        """Whether the headers of a request are there, and its body is not."""
        return self.conn.their_state is h11.SEND_BODY

    @property
    def is_idle(self) -> bool:
        """Whether no request is in work, and all answers were taken."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.is_in_body and not self.transport.get_write_buffer_size()

    @property
    def has_come(self) -> bool:
        """Whether no request is in work, but there is something to read that the event loop has not read yet."""
        return self.is_idle and self.transport.has_unread()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection, or refuse it."""
        super().connection_made(cast(asyncio.Transport, PoliteTransport(transport, self._on_leave)))
        self.shared.add(self, self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.shared.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self.transport.is_leaving:
            return
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """Go on to the next request of the connection."""
        super().on_response_complete()
        self._note(answered=True)

    def leave(self, status: str, sentence: str) -> None:
        """Close the connection; a client whose request is not answered is told why."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not self.is_in_body):
            # Between two requests nothing is owed: the client would take it for the answer to its next one. It may have come, though.
            owed = cycle is None or bool(self.conn.trailing_data[0]) or self.has_come
        else:
            owed = not cycle.response_started
        if owed:
            body = b'{"error": "%s", "problems": []}' % sentence.encode("ascii")
            self.transport.write(_ANSWER % (status.encode("ascii"), len(body), body))
        # Bytes that the client does not take must not keep the connection open.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _on_leave(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # What reads the body, or writes the answer, learns that there is no client any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.shared.let_leave(self, self.loop.time())

    def retire(self) -> None:
        """Let an idle connection leave; a client in the middle of a request's head is told why."""
        if self.conn.trailing_data[0]:
            self.leave("503 Service Unavailable", "The server is stopping. Ask again when it has started anew.")
        else:
            self.transport.close()

    def end(self) -> None:
        """Close a connection that leaves."""
        self.shared.remove(self)
        self.transport.close_now()

    def shutdown(self) -> None:
        """Begin to end, when the server does; a connection that leaves has done so."""
        if not self.transport.is_closing():
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Let a connection leave that has been idle for long, unless the next request has come and was not read yet."""
        if not self.transport.has_unread():
            super().timeout_keep_alive_handler()

    def _unsupported_upgrade_warning(self) -> None:
        # Such a request is answered as any other; advice to install more is no use to anybody here.
        pass

    def _note(self, *, answered: bool = False) -> None:
        if self.transport.is_leaving:
            return
        in_work = self.cycle is not None and not self.cycle.response_complete
        state = (self.is_in_body or not in_work, self.is_in_body)
        # Time runs on while the same head or body grows byte by byte.
        if state != self._state or answered:
            self._state = state
            self.shared.note(self, self.loop.time(), waits=state[0])

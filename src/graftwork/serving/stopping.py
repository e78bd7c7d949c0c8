"""A server that stops without cutting anybody off. No torch.

After a signal, requests that were accepted are answered; whoever asks now gets 503 and ``Connection: close``, at first on new
connections as well, so that load balancers learn of it. Then the listening socket is closed, with what the system had accepted for
it taken over first, and connections on which nothing happens are closed, their writing side first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from graftwork.serving.connections import ACCEPTED_AT_ONCE, Connections

__all__ = ["LINGER_SECONDS", "Server"]

LINGER_SECONDS = 0.5
"""How long a stopping server waits for requests that are on their way, in order to refuse them with words."""
_HANDSHAKE_SECONDS = 0.2
"""How long connections that are half made may take to be made."""
_SO_ATTACH_FILTER = 26
_QUEUE = 2_048
"""Connections that the system accepts before the server takes them."""


_DROP_FIRST_PACKETS = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A packet filter: load the flags of TCP; if SYN is among them, keep nothing of the packet, else all of it."""


def _let_nobody_in(listener: socket.socket) -> None:
    """Let the system ignore who asks for a connection from now on, where it can: their next try finds the socket closed.

    Otherwise it would accept some more between the last ``accept`` here and the closing, and then cut them off. Whose connection
    is half made is let in: that client may already think that it is connected.
    """
    if not sys.platform.startswith("linux"):
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _DROP_FIRST_PACKETS))
    given = struct.pack("HP", len(_DROP_FIRST_PACKETS), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # not every container allows it
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)


class Server(uvicorn.Server):
    """Uvicorn's server on one listening socket.

    Args:
        config: Its settings.
        connections: The connections of the server.
        stop_seconds: That accepted requests get.
        on_ready: Called once the server listens.
        on_stop: Called when it begins to stop; from then on the application must refuse new requests.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        *,
        stop_seconds: float,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._stop_seconds = stop_seconds
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._watch: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        # asyncio accepts as many at once as it thinks the queue is long; the queue may be longer than that.
        for listener in sockets or ():
            listener.listen(_QUEUE)
        self._watch = asyncio.get_running_loop().create_task(self._connections.watch())
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, refuse the rest, and end."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._stop_seconds
        self._on_stop()
        linger = min(LINGER_SECONDS, self._stop_seconds)
        await self._until(loop.time() + linger, lambda: not self._connections.num_open)
        for listener in sockets or ():
            await self._close(listener)
        still = loop.time() + linger
        await self._until(
            end, lambda: not self._connections.num_open or (loop.time() >= still and not self._connections.num_in_work)
        )
        await self._until(min(end, loop.time() + linger), self._has_retired)
        self._connections.end_leaving()
        # Whatever is left has had its time.
        self.config.timeout_graceful_shutdown = max(0.05, end - loop.time())  # type: ignore[assignment]
        await super().shutdown()
        await self._until(loop.time() + linger, lambda: not self._connections.num_leaving)
        if self._watch is not None:
            self._watch.cancel()

    def _has_retired(self) -> bool:
        """Let idle connections leave; return whether all are gone."""
        self._connections.retire(asyncio.get_running_loop().time())
        return not (self._connections.num_open or self._connections.num_leaving)

    async def _until(self, end: float, is_done: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end and not is_done() and not self.force_exit:
            await asyncio.sleep(0.01)

    async def _close(self, listener: socket.socket) -> None:
        """Close a listening socket, but first take over all connections that the system has accepted for it."""
        loop = asyncio.get_running_loop()
        _let_nobody_in(listener)
        await self._until(loop.time() + _HANDSHAKE_SECONDS, lambda: False)
        loop.remove_reader(listener.fileno())
        # What the event loop has accepted needs some turns to become a connection of the server that is closed below.
        await _turns()
        # A bound, since clients may come for ever where the system lets them.
        for _ in range(2 * _QUEUE // ACCEPTED_AT_ONCE):
            accepted = _accepted(listener)
            if not accepted:
                break
            for each in accepted:
                each.setblocking(False)
                with contextlib.suppress(OSError):  # the client has left by now
                    await loop.connect_accepted_socket(self._protocol, each)
            # So that those beyond the limit are gone before there are more.
            await _turns()
        for server in self.servers:
            server.close()
        listener.close()

    def _protocol(self) -> Any:
        # As uvicorn itself makes one.
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """Return some of the connections that the system has accepted."""
    accepted: list[socket.socket] = []
    with contextlib.suppress(OSError):  # there are no more, or no descriptors for them
        while len(accepted) < ACCEPTED_AT_ONCE:
            accepted.append(listener.accept()[0])
    return accepted

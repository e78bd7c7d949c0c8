"""The end of a connection without cutting its client off. No torch.

If a connection is closed while bytes of the client lie unread, the system resets it, and the client's system may then throw away
the answer that it has not read yet. So the writing side is closed first: the client reads all that was sent, and then the end. What
it still sends is read and thrown away, until it closes its side as well or some seconds are over.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Any

__all__ = ["LEAVE_SECONDS", "MOST_LEAVING", "PoliteTransport"]

LEAVE_SECONDS = 5.0
"""How long a client may take to close its side."""
MOST_LEAVING = 64
"""Connections that wait for that; beyond, the one that has waited longest is closed."""


class PoliteTransport:
    """A transport whose ``close`` closes the writing side alone; in all else it is the transport that it wraps.

    Args:
        transport: Of the event loop.
        on_leave: Called once, when the writing side begins to close.
    """

    def __init__(self, transport: asyncio.Transport, on_leave: Callable[[], None]) -> None:
        self._transport = transport
        self._on_leave = on_leave
        self.is_leaving = False
        """Whether the writing side is closed, or will be once everything is written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self.is_leaving or self._transport.is_closing()

    def close(self) -> None:
        """Close the writing side once everything is written; what comes in is still read."""
        if self.is_closing():
            return
        self.is_leaving = True
        try:
            self._transport.write_eof()
        except OSError:  # the client is gone
            self._transport.abort()
            return
        if not self._transport.is_reading():
            self._transport.resume_reading()
        self._on_leave()

    def write(self, data: bytes) -> None:
        """Write, unless nothing more can be: an answer may be made while its connection ends."""
        if not self.is_leaving:
            self._transport.write(data)

    def close_now(self) -> None:
        """Close both sides."""
        self._transport.close()

    def has_unread(self) -> bool:
        """Return whether there is something to read that the event loop has not read yet; False where the system cannot tell."""
        # Not on Windows.
        make = getattr(select, "poll", None)
        handle = self._transport.get_extra_info("socket")
        if make is None or handle is None or self._transport.is_closing():
            return False
        with contextlib.suppress(OSError, ValueError):
            poll = make()
            poll.register(handle.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        return False

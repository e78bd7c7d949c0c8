"""A log that clients cannot fill: of each kind of message the first few, then one a minute that counts the others. Standard library
only."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from graftwork.core.plain_text import plain_text

__all__ = ["QuietLog", "quiet_log"]

_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "python_multipart", "python_multipart.multipart")
"""Those that write when a client, or an answer, is at fault."""
_LONGEST = 4_000
"""Characters of one message; tracebacks keep their end."""
_KINDS = 256


class QuietLog(logging.Filter):
    """Lets through ``first`` messages of a kind at once, and then one every ``seconds``.

    A kind is a place in the code (and its level). Messages become one text without control characters, of at most 4,000 characters.

    Args:
        first: Messages of one kind before it is quieted.
        seconds: Between two messages of a kind after that.
        clock: Seconds that never go back.
    """

    def __init__(self, first: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._first = first
        self._seconds = seconds
        self._clock = clock
        self._kinds: dict[tuple[str, int, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is written; those that are say how many were not."""
        # Bounded, whatever a library does; its places in the code are few.
        key = (record.pathname, record.lineno, record.levelno) if len(self._kinds) < _KINDS else ("", 0, 0)
        kind = self._kinds.setdefault(key, _Kind())
        now = self._clock()
        if kind.written >= self._first and now - kind.last < self._seconds:
            kind.left_out += 1
            return False
        note = f" ({kind.left_out} more of this kind since the last one)" if kind.left_out else ""
        kind.written, kind.last, kind.left_out = kind.written + 1, now, 0
        self._shorten(record, note)
        return True

    def _shorten(self, record: logging.LogRecord, note: str) -> None:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text.rstrip()}\n{logging.Formatter().formatException(record.exc_info)}"
        text = plain_text(text.rstrip())
        if len(text) > _LONGEST:
            half = _LONGEST // 2
            text = f"{text[:half]}\n... {len(text) - _LONGEST} characters ...\n{text[-half:]}"
        record.msg, record.args, record.exc_info, record.exc_text = text + note, None, None, None


class _Kind:
    """What is known of one kind of message."""

    def __init__(self) -> None:
        self.written = 0
        self.left_out = 0
        self.last = 0.0


@contextlib.contextmanager
def quiet_log() -> Iterator[QuietLog]:
    """Quiet the loggers of the libraries that serve, as long as the block runs."""
    quiet = QuietLog()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(quiet)
    try:
        yield quiet
    finally:
        for logger in loggers:
            logger.removeFilter(quiet)

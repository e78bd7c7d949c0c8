"""Where a server does what would hold up all other requests: pictures, large bodies, large answers. Standard library only."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from graftwork.serving.problems import RequestError

__all__ = ["Threads"]

_Result = TypeVar("_Result")
_LARGE = 1 << 20
"""Bytes of a body whose values may need much memory."""


class Threads:
    """The threads of a server beside those of its model."""

    def __init__(self) -> None:
        # Pictures release the interpreter's lock while they are decoded, so threads help.
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="graftwork-pictures")
        # One at a time: the values of a JSON text can take twenty times its memory.
        self._large = ThreadPoolExecutor(max_workers=1, thread_name_prefix="graftwork-large")

    async def run(self, work: Callable[[], _Result], *, size: int = 0) -> _Result:
        """Return what ``work`` returns, done in a thread.

        Args:
            work: What to do.
            size: Of the body that it reads, in bytes; the largest ones are read one after the other.

        Raises:
            RequestError: 503 if the server is stopping.
        """
        try:
            if size > _LARGE:
                waiting = asyncio.get_running_loop().run_in_executor(self._large, functools.partial(_without_collector, work))
            else:
                waiting = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError as error:  # the pool is closed
            raise RequestError(503, "The server is stopping. Ask again when it has started anew.", retry_after=5) from error
        return await waiting

    def close(self) -> None:
        """Finish what has begun and end the threads."""
        for pool in (self._pool, self._large):
            pool.shutdown(cancel_futures=True)


def _without_collector(work: Callable[[], _Result]) -> _Result:
    """Do something while no garbage is looked for: among millions of values that takes a second, in which no other thread runs.

    Values of JSON go when the last name for them does. For one thread at a time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return work()
    finally:
        if was_on:
            gc.enable()

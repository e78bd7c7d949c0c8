"""A lock between processes: held while one of them builds what the others wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["exclusive"]


@contextlib.contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Hold the lock file ``path``; wait while another process holds it. The system frees it when a process ends, however that
    happens.

    Where the system has no such locks (Windows) nobody waits: what is built under the lock must be written atomically all the
    same.

    Raises:
        OSError: If the lock file cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file is never removed: a third process would lock a new one of that name beside the holder of the old one.
    with open(path, "wb") as handle:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Processes that do not outlive the one that started them, however that ends."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["die_with_parent"]

_KILL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG of prctl(2)


def die_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent is gone. Only Linux can: elsewhere the end of a pipe has to tell.

    Args:
        parent: Process that started this one; if it is gone already, this one ends at once.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_KILL_WHEN_PARENT_DIES, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

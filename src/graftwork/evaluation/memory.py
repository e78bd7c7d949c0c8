"""Peak resident memory of this process while a block runs. No torch here, so that plans without it are measured alike."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PeakMemory", "current_rss_bytes"]

_SAMPLING_SECONDS = 0.005
_ACTIVE: list[PeakMemory] = []
"""Open blocks, outermost first: resetting the kernel's mark for an inner one must not lose an outer one's peak."""


def _status_bytes(key: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def current_rss_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not say and psutil is missing."""
    found = _status_bytes("VmRSS:")
    if not found:
        with contextlib.suppress(ImportError):
            import psutil

            found = int(psutil.Process().memory_info().rss)
    return found


def _reset_mark() -> bool:
    """Ask the kernel to start its high-water mark anew; False if it cannot (other system, or not permitted)."""
    try:
        # 5 resets the high-water mark only; other values of this file change the pages' own marks.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return _status_bytes("VmHWM:") > 0


class PeakMemory:
    """Context manager that measures the highest resident memory (RSS) inside its block.

    On Linux the kernel's own high-water mark is reset and read; elsewhere a thread samples every 5 ms and may miss short peaks.
    Blocks may be nested.

    Example:
        >>> with PeakMemory() as memory:
        ...     block = bytearray(1 << 20)
        >>> memory.peak_bytes >= memory.start_bytes > 0
        True
    """

    def __init__(self) -> None:
        self.start_bytes = 0
        """RSS on entry."""
        self.peak_bytes = 0
        """Highest RSS so far; final after the block."""
        self.method = ""
        """``"kernel"`` or ``"sampling"``."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def increase_bytes(self) -> int:
        """Return how far the peak rose above the start, at least 0."""
        return max(0, self.peak_bytes - self.start_bytes)

    def _note(self, value: int) -> None:
        self.peak_bytes = max(self.peak_bytes, value)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLING_SECONDS):
            self._note(current_rss_bytes())

    def __enter__(self) -> Self:
        # The mark is about to be reset, so outer blocks take what it says now.
        for outer in _ACTIVE:
            outer._note(_status_bytes("VmHWM:") if outer.method == "kernel" else current_rss_bytes())
        self.method = "kernel" if _reset_mark() else "sampling"
        self.start_bytes = current_rss_bytes()
        self._note(self.start_bytes)
        if self.method == "sampling":
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        _ACTIVE.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # By identity in effect: blocks can end in another order than they began.
        _ACTIVE.remove(self)
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        reached = max(_status_bytes("VmHWM:") if self.method == "kernel" else 0, current_rss_bytes())
        # The mark began anew with this block, so the outer ones hear of the peak here.
        for block in (*_ACTIVE, self):
            block._note(reached)

"""Wall and CPU seconds and the memory high-water mark of a stretch of work, added up over resumed runs."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["CostMeter", "peak_rss_bytes", "reset_peak_rss"]


def reset_peak_rss() -> bool:
    """Set the process's high-water mark to what it holds now; return whether the system allows it (Linux does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """Return the most resident memory that the process has held since :func:`reset_peak_rss`, or ever where that is not possible."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class CostMeter:
    """Adds up the costs of everything done inside :meth:`running`."""

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self.peak_rss_bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block, also if it raises."""
        reset_peak_rss()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu
            self.peak_rss_bytes = max(self.peak_rss_bytes, peak_rss_bytes())

    def state_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"wall_seconds": self.wall_seconds, "cpu_seconds": self.cpu_seconds, "peak_rss_bytes": self.peak_rss_bytes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.wall_seconds = float(state["wall_seconds"])
        self.cpu_seconds = float(state["cpu_seconds"])
        self.peak_rss_bytes = int(state["peak_rss_bytes"])

"""Kills of a run by how far it has come, not by the clock: they hit the same part of it on every machine.
And what equal runs have in common."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["jobs_done", "killed_after", "numbers_of"]

MEASURED = {
    "seconds",
    "wall_seconds",
    "cpu_seconds",
    "peak_rss_bytes",
    "latency_ms_batch1",
    "latency_ms_batch32",
    "created",
    "timing",
    "estimate",
    "machine",
    "command",
    "pareto",
}


def jobs_done(out: Path) -> int:
    """Return how many jobs of a run have ended."""
    return sum(1 for _ in out.glob("jobs/*/result.json"))


def killed_after(process: subprocess.Popen[Any], out: Path, jobs: int) -> bool:
    """Kill the process of a run as soon as so many of its jobs have ended; return whether it was still at work then."""
    while process.poll() is None:
        if jobs_done(out) >= jobs:
            process.send_signal(signal.SIGKILL)
            # What ended by itself in this moment was not killed.
            return process.wait() == -signal.SIGKILL
        time.sleep(0.02)
    return False


def numbers_of(value: Any) -> Any:
    """Return a result without what the clock and the machine say."""
    if isinstance(value, dict):
        return {key: numbers_of(item) for key, item in value.items() if key not in MEASURED}
    return [numbers_of(item) for item in value] if isinstance(value, list) else value

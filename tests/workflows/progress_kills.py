"""Kills of a run by how far it has come, not by the clock: they hit the same part of it on every machine."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["jobs_done", "killed_after"]


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

"""Run a command and watch what it takes: wall seconds, CPU seconds, and the most memory that it and all its children hold together."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Watched", "memory_of", "watch"]

EVERY = 0.25
"""Seconds between two looks at the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What a finished command took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Proportional memory (what several processes share counts once); 0 where the system cannot tell (needs Linux)."""
    code: int
    out: str
    error: str


def memory_of(root: int) -> int:
    """Return the proportional resident bytes of a process and of everything that it started; 0 if it is gone."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name may hold blanks and brackets; what follows the last bracket does not.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    family = {root}
    # Children come after their parents in the end, however the numbers are ordered.
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def watch(command: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path) -> Watched:
    """Run a command to its end.

    Args:
        command: The words.
        environment: Variables besides those of this process.
        folder: For its output, which may be long.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun, peak = time.perf_counter(), 0
    out, error = folder / "stdout.txt", folder / "stderr.txt"
    with open(out, "wb") as out_file, open(error, "wb") as error_file:
        process = subprocess.Popen(list(command), stdout=out_file, stderr=error_file, env={**os.environ, **(environment or {})})
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(EVERY)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Watched(
        seconds=seconds,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_bytes=peak,
        code=process.returncode,
        out=out.read_text(encoding="utf-8", errors="replace"),
        error=error.read_text(encoding="utf-8", errors="replace"),
    )

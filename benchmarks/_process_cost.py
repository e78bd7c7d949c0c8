"""Runs a command and prints what its process took as JSON: ``python -m benchmarks._process_cost COMMAND...`` (POSIX).

A process of its own, because Linux counts the memory of whoever starts a command as the command's: this one has little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; print its CPU and wall seconds and its resident memory at most, in bytes (mapped files among it)."""
    started = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:] if arguments is None else arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    # Kilobytes, but for macOS.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall, "peak_bytes": peak}))
    return process.returncode


if __name__ == "__main__":
    raise SystemExit(main())

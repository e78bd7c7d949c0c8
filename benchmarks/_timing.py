"""Timing and memory for benchmarks: contenders take turns, so that a busy moment hits all of them alike, and ratios stay fair."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Timing", "format_table", "peak_over_idle", "take_turns"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one contender over all rounds."""

    minimum: float
    median: float
    rounds: tuple[float, ...]

    def ratio(self, other: Timing) -> float:
        """Return the median over rounds of this contender's time over the other's in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    warmup: int = 2,
    clock: Callable[[], float] = time.process_time,
    seconds: float = float("inf"),
) -> dict[str, Timing]:
    """Run all contenders in turn, round after round, and return their times.

    Args:
        contenders: Functions by name; each call is one measurement.
        rounds: Rounds that count, at least 1.
        warmup: Rounds before that do not.
        clock: ``time.process_time`` (CPU seconds: robust on a shared machine, for single-threaded work) or ``time.perf_counter``.
        seconds: After so many seconds no further round begins, but at least three are run (or ``rounds``, if fewer).
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    started = time.perf_counter()
    enabled = gc.isenabled()
    gc.disable()
    try:
        for index in range(warmup + rounds):
            if index >= warmup + min(3, rounds) and time.perf_counter() - started > seconds:
                break
            for name in order if index % 2 == 0 else reversed(order):
                begin = clock()
                contenders[name]()
                taken = clock() - begin
                if index >= warmup:
                    times[name].append(taken)
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return {name: Timing(min(values), statistics.median(values), tuple(values)) for name, values in times.items()}


def peak_over_idle(prepare: Callable[[], Callable[[], object]], *, repeats: int = 2) -> int | None:
    """Return the peak resident memory of some work above the memory before it, in bytes; None where the system cannot tell
    (needs Linux).

    A forked process measures: what it frees is not there for the next measurement to reuse.

    Args:
        prepare: Builds everything that does not count and returns the work.
        repeats: Times the work is done.
    """
    if not Path("/proc/self/clear_refs").exists() or not hasattr(os, "fork"):
        return None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _map_every_tensor()
            work = prepare()
            gc.collect()
            _give_back_free_memory()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            idle = _status("VmRSS")
            for _ in range(repeats):
                work()
            os.write(writer, json.dumps(_status("VmHWM") - idle).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer: Any = json.loads(pipe.read() or '"the measuring process died"')
    os.waitpid(child, 0)
    if not isinstance(answer, int):
        raise RuntimeError(f"The memory measurement failed: {answer}")
    return answer


def _map_every_tensor() -> None:
    """Let the allocator map all but small blocks: otherwise holes that it keeps between tensors count as memory of the method."""
    try:
        ctypes.CDLL("libc.so.6").mallopt(-3, 65536)  # M_MMAP_THRESHOLD
    except (OSError, AttributeError):  # not glibc
        return


def _give_back_free_memory() -> None:
    """What earlier work freed would otherwise be reused without showing up."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # not glibc: the figure is then a lower bound
        return


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as aligned text; numbers get three digits, None a dash."""

    def show(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    cells = [list(columns), *[[show(row.get(column)) for column in columns] for row in rows]]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)

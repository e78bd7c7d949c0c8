"""What does tuning in one way cost? A few steps with the memory meter say it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

from graftwork.core.scratch import scratch_folder
from graftwork.data.samples import take_rows
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.estimate import LONG_HORIZON
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "TuneCostJob"]

_ROWS = 256
"""Rows on which it is measured; features that are stored are computed for these."""
_WARM_UP, _MEASURED = 2, 7


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneCostJob(Job):
    """Builds the plan's learner on a few rows and trains a few steps; the median step counts."""

    kind: ClassVar[str] = "tune_cost"

    max_steps: int = LONG_HORIZON
    seconds: float = 4.0
    """Seconds of steps after which it makes do with what was measured."""

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Measure, with an empty store of features."""
        with scratch_folder("tune") as folder:
            return self.with_cache(str(folder))._measured(run, control)

    def _measured(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        from graftwork.evaluation.memory_meter import MemoryMeter

        control.report({"type": "progress", "step": 0})
        _give_memory_back()
        started = time.perf_counter()
        learner: Any = self.learner(take_rows(self.suite(run), _ROWS))
        setup = time.perf_counter() - started
        model = learner.model
        seconds: list[float] = []
        held, rss = 0, 0
        end = time.monotonic() + self.seconds
        for step in range(1, _WARM_UP + _MEASURED + 1):
            # However slow, one step is metered and one is timed besides the first.
            if len(seconds) > 1 and (control.stop is not None or time.monotonic() > end):
                break
            if step == _WARM_UP:
                # One step is metered and not timed: hooks cost time.
                with MemoryMeter([*model.parameters(), *model.buffers()]) as meter:
                    learner.train(step)
                held, rss = meter.held_bytes, meter.rss_bytes
            else:
                begin = time.perf_counter()
                learner.train(step)
                seconds.append(time.perf_counter() - begin)
            control.report({"type": "progress", "step": step})
        ledger, deltas = learner.ledger(), learner.deltas()
        trained = ledger.parameters_trained
        # Running statistics move with the data: they are stored, though nothing learns them.
        moved = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var")))
        uses = any("running_mean" in name for delta in deltas.values() for name in delta.names())
        inside = {id(item): item for prefix in deltas for item in model.get_submodule(prefix).parameters() if item.requires_grad}
        # A delta may hold what did not learn here: the adapters of other tasks.
        held_in_deltas = sum(delta.count() for delta in deltas.values()) - sum(item.numel() for item in inside.values())
        return {
            "status": "ok",
            "cost": {
                "trainable": trained,
                "stored": trained + max(moved if uses else 0, held_in_deltas),
                "total": ledger.parameters_total,
                "held_bytes": held,
                # A gradient and two moments of the optimiser for each number that learns, in float32.
                "optimizer_bytes": 12 * trained,
                "rss_bytes": rss,
                "seconds_per_step": median(seconds[1:] or seconds),
                "setup_seconds": setup,
                "batch": round(ledger.samples / max(ledger.steps, 1)),
            },
        }


def _give_memory_back() -> None:
    """Return to the system what earlier measurements of this process left: it would count as resident."""
    gc.collect()
    # Only glibc keeps it, and only there is the function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


JOB = TuneCostJob

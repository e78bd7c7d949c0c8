"""What does a step of a plan cost? A few steps say it before the race, within a few seconds."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.scratch import scratch_folder
from graftwork.data.samples import take_rows
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.growing_fits import FIRST_ROWS, GrownFit, fit_on_growing_parts
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.data.suite import Suite
    from graftwork.interfaces.learner import Learner

__all__ = ["ENOUGH", "JOB", "LONG_HORIZON", "EstimateJob"]

WARM_UP = 2
"""Steps that are not measured: imports and first allocations fall into them."""
MEASURED = 9
"""Steps whose median counts: one step that another process disturbed must not count."""
LONG_HORIZON = 100_000
"""Horizon handed to the learner: so long that it does not stop to validate within the few steps."""
ENOUGH = 4.0
"""Seconds of measured steps if nothing else is asked for."""
FEW_ROWS = (16, 64)
"""Rows with which everything is imported, and rows on which plans with a pretrained backbone are measured: features of all rows may take
longer than the whole race."""
SAMPLE_ROWS, MORE_ROWS, SHORT = 256, 2048, 0.05
"""Rows whose prediction is measured, and more of them where that takes less than so many seconds: what one call costs would be
counted once for each few rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateJob(Job):
    """Builds the plan's learner once everything is imported, trains a few steps, predicts some rows."""

    kind: ClassVar[str] = "estimate"

    max_steps: int = LONG_HORIZON
    seconds: float = ENOUGH
    """Seconds of steps after which it makes do with what was measured; a step that has begun is finished."""

    known: tuple[int, float] | None = None
    """Rows and seconds of a fit in one go that was made before; None if there was none."""

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Measure, with an empty store of features: what an earlier run of the same data left there would make them seem free."""
        with scratch_folder("estimate") as folder:
            return self.with_cache(str(folder))._measured(run, control)

    def _measured(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        suite = self.suite(run)
        control.report({"type": "progress", "step": 0})
        first_setup = self._warmed(suite)
        whole, fitted = suite, self._fitted_in_one_go(suite, control)
        if fitted is None:
            suite = self._part_in_time(suite)
            more = len(whole.splits["train"]) / max(len(suite.splits["train"]), 1)
            learner, setup, once = self._built(suite)
        else:
            suite, more = fitted.suite, 1.0
            learner, setup, once = fitted.learner, fitted.seconds, 0.0
        end = time.monotonic() + self.seconds
        few = learner.context.suite
        times: list[float] = []
        made, small, is_one_shot = learner.step, 0, fitted is not None
        while (
            not is_one_shot
            and made < self.max_steps
            and (not times or (len(times) < WARM_UP + MEASURED and time.monotonic() < end))
        ):
            if times and control.stop is not None:
                break
            started = time.perf_counter()
            learner.train(made + 1)
            times.append(time.perf_counter() - started)
            if learner.step == made:  # nothing more is gained
                times.pop()
                is_one_shot = made == 1
                break
            made = learner.step
            small = small or _numbers(learner)
            control.report({"type": "progress", "step": made})
        is_one_shot |= self.max_steps == 1
        later = times[WARM_UP:] or times[1:] or times
        seconds = 0.0 if is_one_shot or not later else median(later)
        # What the first step takes beyond a step belongs to every training (the trees' tables of bins, say).
        setup += max(0.0, times[0] - seconds) if times else 0.0
        setup, seconds = more * setup, more * seconds
        rows = few.splits["val"][:SAMPLE_ROWS]
        learner.predict(rows[:1])  # a model that is made when it is asked for (by merging) is made here, not in the time of a row
        taken = _prediction_seconds(learner, rows)
        if taken < SHORT and len(few.splits["val"]) > len(rows):
            rows = few.splits["val"][:MORE_ROWS]
            taken = _prediction_seconds(learner, rows)
        evaluation = taken * len(whole.splits["val"]) / max(len(rows), 1)
        ledger = learner.ledger()
        # Without counted samples (trees) a step sees all training rows.
        batch = ledger.samples / max(ledger.steps, 1) if ledger.samples else len(few.splits["train"])
        sees_all = batch >= len(few.splits["train"]) and few is suite
        return {
            "status": "ok",
            "estimate": {
                "plan": self.plan.name,
                "seconds_per_step": seconds,
                "setup_seconds": setup,
                "once_seconds": once,
                "eval_seconds": evaluation,
                "steps_per_epoch": 1.0 if sees_all else max(1.0, len(whole.splits["train"]) / max(batch, 1.0)),
                "sees_all_rows": sees_all,
                "parameters": _final_numbers(small, _numbers(learner), learner.step, self.max_steps),
                "peak_rss_bytes": ledger.peak_rss_bytes,
                "latency_ms": ledger.latency_ms_batch1 or _latency(learner, rows[:1]),
            },
            "first_setup_seconds": first_setup,
        }

    def _warmed(self, suite: Suite) -> float:
        """Import what the plan needs, with a learner of a few rows; return the seconds that it took."""
        started = time.perf_counter()
        # What fails here fails below with its own words, or not at all: so few rows are no fair test.
        with contextlib.suppress(Exception):
            self.learner(take_rows(suite, FEW_ROWS[0])).train(1)
        return time.perf_counter() - started

    def _fitted_in_one_go(self, suite: Suite, control: JobControl) -> GrownFit | None:
        """Return what fits of growing parts say, if the plan is fitted in one go; None if not, or if it fails on a part."""
        if self.max_steps != 1 or self.plan.source == "pretrained":
            return None
        # What fails on a part may be learned from all rows; if not, it says so itself.
        with contextlib.suppress(Exception):
            return fit_on_growing_parts(
                self.learner, suite, seconds=self.seconds, known=self.known, is_stopped=lambda: control.stop is not None
            )
        return None

    def _part_in_time(self, suite: Suite) -> Suite:
        """Return the suite, or a part of its rows if every step of the plan sees all rows and one of them would take too long."""
        if (
            self.max_steps in (1, LONG_HORIZON)
            or self.plan.source == "pretrained"
            or len(suite.splits["train"]) <= 2 * FIRST_ROWS
        ):
            return suite
        part = take_rows(suite, FIRST_ROWS * 4 // 3)
        started = time.perf_counter()
        with contextlib.suppress(Exception):
            learner = self.learner(part)
            learner.train(1)
            ledger = learner.ledger()
            if 0 < ledger.samples < len(part.splits["train"]):
                return suite  # batches cost the same, whatever the number of rows
            seconds = (time.perf_counter() - started) * len(suite.splits["train"]) / max(len(part.splits["train"]), 1)
            return part if seconds > self.seconds else suite
        return suite

    def _built(self, suite: Suite) -> tuple[Learner, float, float]:
        """Return a learner, the seconds that building it takes, and those that all trainings of the plan pay together once."""
        if self.plan.source != "pretrained":
            started = time.perf_counter()
            learner = self.learner(suite)
            return learner, time.perf_counter() - started, 0.0
        few, seconds = take_rows(suite, FEW_ROWS[1]), []
        # The first time: what a row costs. The second time, with everything stored: what a training pays.
        for _ in range(2):
            started = time.perf_counter()
            learner = self.learner(few)
            seconds.append(time.perf_counter() - started)
        return learner, seconds[1], max(0.0, seconds[0] - seconds[1]) / len(few) * len(suite)


def _prediction_seconds(learner: Learner, rows: NDArray[np.int64]) -> float:
    started = time.perf_counter()
    learner.predict(rows)
    return time.perf_counter() - started


def _numbers(learner: Learner) -> int:
    ledger = learner.ledger()
    return ledger.parameters_stored or ledger.parameters_total


def _final_numbers(first: int, now: int, step: int, horizon: int) -> int:
    """Return the numbers that the finished model stores; one that grows with every step (trees) goes on growing."""
    return now if now <= first or step < 2 else round(first + (now - first) * (horizon - 1) / (step - 1))


def _latency(learner: Learner, row: NDArray[np.int64]) -> float:
    times: list[float] = []
    # Slow models are not asked seven times.
    while len(times) < 7 and sum(times) < 1000.0:
        started = time.perf_counter()
        learner.predict(row)
        times.append(1000 * (time.perf_counter() - started))
    # The first two are warm-up.
    return median(times[2:] or times[-1:])


JOB = EstimateJob

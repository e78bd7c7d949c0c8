"""What does a step of a plan cost? A few steps say it before the race."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["JOB", "LONG_HORIZON", "EstimateJob"]

WARM_UP = 2
MEASURED = 4
LONG_HORIZON = 100_000
"""Horizon handed to the learner: so long that it does not stop to validate within the few steps."""
SLOW_STEP = 1.5
"""Seconds after which one measured step is enough."""
SAMPLE_ROWS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateJob(Job):
    """Builds the plan's learner twice (the second time with warm caches), trains a few steps, predicts some rows."""

    kind: ClassVar[str] = "estimate"

    max_steps: int = LONG_HORIZON

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Measure."""
        suite = self.suite(run)
        control.report({"type": "progress", "step": 0})
        started = time.perf_counter()
        learner = self.learner(suite)
        first_setup = time.perf_counter() - started
        setup = first_setup
        if first_setup > 0.5:  # features were stored or packages were imported: the race meets warm caches
            started = time.perf_counter()
            learner = self.learner(suite)
            setup = time.perf_counter() - started
        first_step = _first_step(learner)  # imports and first allocations fall into it
        small, started = _numbers(learner), time.perf_counter()
        # One step more, from 1 to 2: slow plans are judged by it alone.
        learner.train(WARM_UP)
        seconds = time.perf_counter() - started
        if learner.step < WARM_UP:  # fitted in one go: whatever the horizon, a training costs this once
            if first_step > 0.5:
                learner = self.learner(suite)
                first_step = _first_step(learner)
            setup, seconds = setup + first_step, 0.0
        elif seconds < SLOW_STEP:
            started = time.perf_counter()
            learner.train(WARM_UP + MEASURED)
            # Trees may stop early, so the steps made are counted.
            seconds = (time.perf_counter() - started) / max(1, learner.step - WARM_UP)
        rows = suite.splits["val"][:SAMPLE_ROWS]
        learner.predict(rows[:1])  # a model that is made when it is asked for (by merging) is made here, not in the time of a row
        started = time.perf_counter()
        learner.predict(rows)
        evaluation = (time.perf_counter() - started) * len(suite.splits["val"]) / max(len(rows), 1)
        ledger = learner.ledger()
        # Without counted samples (trees) a step sees all training rows.
        batch = ledger.samples / max(ledger.steps, 1) if ledger.samples else len(suite.splits["train"])
        return {
            "status": "ok",
            "estimate": {
                "plan": self.plan.name,
                "seconds_per_step": seconds,
                "setup_seconds": setup,
                "eval_seconds": evaluation,
                "steps_per_epoch": max(1.0, len(suite.splits["train"]) / max(batch, 1.0)),
                "parameters": _final_numbers(small, _numbers(learner), learner.step, self.max_steps),
                "peak_rss_bytes": ledger.peak_rss_bytes,
                "latency_ms": ledger.latency_ms_batch1 or _latency(learner, rows[:1]),
            },
            "first_setup_seconds": first_setup,
        }


def _first_step(learner: Learner) -> float:
    started = time.perf_counter()
    learner.train(1)
    return time.perf_counter() - started


def _numbers(learner: Learner) -> int:
    ledger = learner.ledger()
    return ledger.parameters_stored or ledger.parameters_total


def _final_numbers(first: int, now: int, step: int, horizon: int) -> int:
    """Return the numbers that the finished model stores; one that grows with every step (trees) goes on growing."""
    return now if now <= first or step < 2 else round(first + (now - first) * (horizon - 1) / (step - 1))


def _latency(learner: Learner, row: NDArray[np.int64]) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        learner.predict(row)
        times.append(1000 * (time.perf_counter() - started))
    # The first two are warm-up.
    return median(times[2:])


JOB = EstimateJob

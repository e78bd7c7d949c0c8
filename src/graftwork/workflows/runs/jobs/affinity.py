"""One short extra run of a shared plan in which the effect of the tasks on one another is measured at several steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graftwork.core.errors import GraftworkError
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "AffinityJob", "within_training"]

MEASUREMENTS = 6
BATCHES = 3
ROWS = 64
GRADIENT_SAMPLES = 16
"""Gradients are sampled about so often during the run."""
HELD_BACK = 0.2
"""Share of the training rows that affinities are read on if no other rows may be seen."""


def within_training(suite: Suite, seed: int) -> Suite:
    """Return the suite with its training rows divided into ``train`` and ``val`` (which ``test`` repeats); groups stay whole.

    Whatever is measured on the result has seen no validation and no test row.

    Args:
        suite: The suite.
        seed: Seed of the division.
    """
    train = np.asarray(suite.splits["train"])
    # Whole groups, or the held rows would have close relatives among those learned from.
    units = train if suite.groups is None else suite.groups[train]
    names = np.unique(units)
    order = Seeds(seed).numpy("within-training").permutation(names)
    held = np.isin(units, order[: max(1, round(HELD_BACK * len(names)))])
    val = np.sort(train[held])
    return suite.with_splits({"train": np.sort(train[~held]), "val": val, "test": val})


@dataclass(frozen=True, kw_only=True, slots=True)
class AffinityJob(Job):
    """Trains to ``until`` and measures after equal parts of the way, on validation rows; samples gradients on the way."""

    kind: ClassVar[str] = "affinity"

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Train and measure.

        Raises:
            GraftworkError: If the plan's learner has no shared model to measure.
        """
        suite = self.suite(run)
        learner: Any = self.learner(suite)
        trainer = getattr(learner, "trainer", None)
        if trainer is None:
            # Trees, say: they share no weights.
            raise GraftworkError(f"The plan {self.plan.name!r} has no shared model whose affinities could be measured.")
        from graftwork.data.loader import iter_rows
        from graftwork.evaluation.affinity import measure_affinity, summarise_affinity
        from graftwork.training.gradient_watch import GradientWatch, summarise_gradients

        learned = trainer.stream.source.suite
        # Drawn, not the first ones: tables are often sorted, and data sets stand one behind the other in a suite.
        rows = Seeds(self.facts.root_seed).numpy("affinity").permutation(learned.splits["val"])[: BATCHES * ROWS]
        batches = list(iter_rows(learned, rows, ROWS, device=trainer.device))
        watch = GradientWatch(suite.tasks, max(1, self.until // GRADIENT_SAMPLES))
        # No checkpoint of this job exists, so a callback may be added after building.
        trainer.callbacks = (*trainer.callbacks, watch)
        found = []
        for number in range(1, MEASUREMENTS + 1):
            learner.train(max(1, round(self.until * number / MEASUREMENTS)))
            control.report({"type": "progress", "step": learner.step})
            found.append(measure_affinity(trainer.model, suite.tasks, batches, learning_rate=trainer.config.learning_rate))
            # Looked at between the parts only: the run is short.
            if control.stop is not None:
                break
        # A deadline (`finish`) after the first measurement leaves something to report.
        if control.stop == "keep" or not found:
            return {"status": "stopped", "steps": learner.step}
        return {
            "status": "ok",
            "steps": learner.step,
            "affinity": summarise_affinity(found, suite.task_names),
            "gradients": summarise_gradients(watch, suite.task_names),
        }


JOB = AffinityJob

"""One short extra run of a shared plan in which the effect of the tasks on one another is measured at several steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.workflows.fit.control import JobControl
from graftwork.workflows.fit.job_data import build_learner, job_suite
from graftwork.workflows.fit.run_folder import RunFolder

__all__ = ["run_affinity"]

MEASUREMENTS = 6
BATCHES = 3
ROWS = 64


def run_affinity(job: Mapping[str, Any], run: RunFolder, control: JobControl) -> dict[str, Any]:
    """Train to ``until`` and measure after equal parts of the way, on validation rows.

    Raises:
        GraftworkError: If the plan's learner has no shared model to measure.
    """
    suite = job_suite(run.suite, job)
    learner: Any = build_learner(job, suite)
    trainer = getattr(learner, "trainer", None)
    if trainer is None:
        raise GraftworkError(f"The plan {job['plan']['name']!r} has no shared model whose affinities could be measured.")
    from graftwork.data.loader import iter_rows
    from graftwork.evaluation.affinity import measure_affinity, summarise_affinity

    learned = trainer.stream.source.suite
    rows = learned.splits["val"][: BATCHES * ROWS]
    batches = list(iter_rows(learned, rows, ROWS))
    found = []
    for number in range(1, MEASUREMENTS + 1):
        learner.train(max(1, round(job["until"] * number / MEASUREMENTS)))
        control.report({"type": "progress", "step": learner.step})
        found.append(measure_affinity(trainer.model, suite.tasks, batches, learning_rate=trainer.config.learning_rate))
        if control.stop is not None:
            break
    if control.stop == "keep" or not found:
        return {"status": "stopped", "steps": learner.step}
    return {"status": "ok", "steps": learner.step, "affinity": summarise_affinity(found, suite.task_names)}

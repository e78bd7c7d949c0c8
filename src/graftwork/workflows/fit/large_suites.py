"""Large suites, whose finals learned from a sample of the rows: how models of all rows are made of what the race found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.workflows.fit.attempts import sees_all_rows, whole_seconds
from graftwork.workflows.fit.ensemble import chosen_again
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.effort import LEAST_PART
from graftwork.workflows.runs.horizons import own_horizon
from graftwork.workflows.runs.job_data import read_predictions
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["for_many_rows", "least_steps", "see_a_part", "time_for_all_rows", "weights_chosen_again"]

Weights = Mapping[str, Mapping[str, float]]
Finals = Mapping[str, Mapping[int, TrainJob]]
SAMPLE_FINISH = 0.85
"""Share of the time left that a training of all rows of a large suite may take: its end takes time, too."""


def see_a_part(weights: Weights, finals: Finals) -> bool:
    """Return whether finals learned from a sample of the training rows."""
    return any(job.rows for name in weights for job in finals[name].values())


def for_many_rows(
    context: RunContext[FitSettings], weights: Weights, finals: Finals, left: float | None
) -> dict[str, dict[str, Any]]:
    """Return threads and seconds for trainings of a large suite, by plan.

    A plan that sees all rows in every step takes all cores if it is most of the work, and ends as it is when the time is up.

    Args:
        context: The run.
        weights: ``{plan: {task: weight}}`` of what is handed over.
        finals: Finished finals of every plan.
        left: Seconds that are left; None: no limit.
    """
    seconds = whole_seconds(context, {name: finals[name] for name in weights})
    workers, total = max(1, context.settings.num_workers), sum(seconds.values())
    found: dict[str, dict[str, Any]] = {}
    for name, one in seconds.items():
        # Without a limit nothing measured may decide, and runs with other numbers of workers give equal bits.
        if left is not None and sees_all_rows(context, name):
            found[name] = {"seconds": max(1.0, SAMPLE_FINISH * left), "threads": workers if one > total / 2 else 1}
    return found


def time_for_all_rows(context: RunContext[FitSettings], finals: Finals, left: float | None) -> dict[str, float]:
    """Return the seconds of trainings on all rows by plan, of those that can become better than the ones of the race in time.

    Args:
        context: The run.
        finals: Finished finals of every plan.
        left: Seconds that may be used; None: no limit.
    """
    seconds, workers = whole_seconds(context, finals), max(1, context.settings.num_workers)
    return {
        name: one
        for name, one in seconds.items()
        if left is None or not sees_all_rows(context, name) or LEAST_PART * one / workers <= left
    }


def weights_chosen_again(context: RunContext[FitSettings], weights: Weights, trained: Mapping[str, TrainJob]) -> Weights:
    """Return weights from the rows that models of all rows left out: plans that learned from a sample gain differently by more rows.
    Of a mixed plan the plans stay that its scores are those of.

    Args:
        context: The run.
        weights: The weights of the race.
        trained: ``{plan: its training on all rows}``.
    """
    # What is fitted in one go left nothing out.
    if one_plan_a_task(weights) or any(context.plans[plan].fitted_at_once for plan in trained):
        return weights
    job = next(iter(trained.values()))
    suite = job.suite(context.run)
    predictions = {
        plan: read_predictions(context.run.job(one.id) / "predictions.safetensors", suite)["val"] for plan, one in trained.items()
    }
    return chosen_again(suite, suite.splits["val"], predictions, weights)


def least_steps(context: RunContext[FitSettings], plan: str, finals: Finals, more: Mapping[str, Any]) -> float:
    """Return the steps from which on a training that was cut is better than one of the race: of boosted trees on many more rows
    most of the rounds suffice; networks whose rate had not fallen are none."""
    if plan not in more or own_horizon(context.plans[plan]) in (None, 1):
        return math.inf
    steps = [int((context.run.result(job.id) or {}).get("steps", 0)) for job in finals[plan].values()]
    return LEAST_PART * max(steps, default=0)

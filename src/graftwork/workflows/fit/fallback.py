"""A first model within seconds, so that every run ends with one, however short its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graftwork.core.records import Ledger, Plan
from graftwork.workflows.fit.ranking import rung_scores
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.horizons import own_horizon, shared_plans
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.plan_costs import FirstFit

__all__ = ["FALLBACK_ROWS", "fallback_job", "make_first_models", "measured_first_fits"]

FALLBACK_ROWS = 5000
"""Most rows that first models learn from."""
FALLBACK_STEPS = 60
MANY_OUTPUTS = 200
"""Classes and values of all tasks from which on quick plans are not relied on alone."""
LEAST_LIMIT = 5.0
"""Seconds below which a time limit is taken for a mistake that is said."""
SHARE = 0.08
"""Share of the time limit for the first models, all together."""
MOST_SHARE = 0.2
"""Share after which those that have not ended are ended: starting workers counts, and a single step may be long."""


def _jobs(context: RunContext[Any], plans: Sequence[Plan]) -> list[TrainJob]:
    limit = context.settings.time_limit or 0.0
    quick = [plan for plan in plans if plan.quick]
    # Trees of thousands of classes are not quick: a few steps of one model for all tasks are.
    outputs = sum(max(task.size, len(task.classes)) for task in context.suite.tasks)
    chosen = quick if quick and outputs <= MANY_OUTPUTS else [*[*shared_plans(plans), *plans][:1], *quick]
    return [
        context.maker.fallback(plan, steps=FALLBACK_STEPS, rows=FALLBACK_ROWS, seconds=0.5 * SHARE * limit) for plan in chosen
    ]


def make_first_models(context: RunContext[Any], plans: Sequence[Plan]) -> None:
    """Make first models of the quick plans; none without a time limit, or with one of less than 5 s.

    Estimates come after them: a run that has a model may spend its time on measuring.

    Args:
        context: The run.
        plans: Plans that may race.
    """
    limit = context.settings.time_limit
    if limit is None or limit < LEAST_LIMIT or context.settings.steps is not None:
        return
    jobs = _jobs(context, plans)
    context.run.emit("phase", phase="first models", jobs=len(jobs), plans=[job.plan.name for job in jobs])
    # Only the user stops them, and their own time.
    context.run_jobs(jobs, past_deadline=True, seconds=MOST_SHARE * limit)


def measured_first_fits(context: RunContext[Any], plans: Sequence[Plan]) -> dict[str, FirstFit]:
    """Return what the first models cost that were fitted in one go, by plan.

    Args:
        context: The run, after :func:`make_first_models`.
        plans: The plans that it was called with.
    """
    found = {}
    for job in _jobs(context, plans):
        result = context.run.result(job.id)
        if own_horizon(job.plan) == 1 and result is not None and result["status"] == "ok" and result["steps"] == 1:
            ledger = Ledger.from_json(result["ledger"])
            found[job.plan.name] = FirstFit(
                rows=min(FALLBACK_ROWS, len(context.suite.splits["train"])),
                seconds=ledger.wall_seconds,
                parameters=ledger.parameters_stored or ledger.parameters_total,
                peak_rss_bytes=ledger.peak_rss_bytes,
            )
    return found


def fallback_job(context: RunContext[Any]) -> TrainJob | None:
    """Return the best of the first models by validation; None if there is none."""
    run = context.run
    done = {}
    for job in _jobs(context, list(context.plans.values())):
        result = run.result(job.id)
        if result is not None and result["status"] == "ok":
            done[job.plan.name] = (job, result)
    if not done:
        return None
    found = {name: result for name, (_, result) in done.items()}
    scores = rung_scores(context.suite, context.plans, found, context.settings.weights)
    best = max(done, key=lambda name: scores.get(name, float("-inf")))
    return done[best][0]

"""How many seconds are kept for what follows the finals: controls, affinity, verdict, the look at columns, models on all rows.

A model on all rows is made for the plan that is chosen, or for those that are averaged. Who that will be is not known, but validation
rows say who it will not be: for plans far behind nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from graftwork.workflows.fit.attempts import plan_seconds, whole_seconds
from graftwork.workflows.fit.inspection import INSPECTION_SHARE
from graftwork.workflows.fit.large_suites import time_for_all_rows
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.fit.ranking import rung_scores
from graftwork.workflows.fit.replanning import WHOLE_SHARE
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import seconds_left
from graftwork.workflows.runs.horizons import REFIT_PLANS
from graftwork.workflows.runs.jobs.train import TrainJob

__all__ = ["likely_choices", "reserved_seconds"]

Finals = Mapping[str, Mapping[int, TrainJob]]

MOST_BEHIND = 15.0
"""Percent of the mean validation score by which a plan may be behind the best one and still be chosen, or take part in an average."""
VERDICT_SECONDS = 2.0
VERDICT_SHARE = 0.03
"""Seconds and share of the time limit that the verdict may take, the larger of the two."""


def likely_choices(context: RunContext[Any], finals: Finals) -> list[str]:
    """Return the finalists that may be chosen, or take part in an average, by their scores on validation rows.

    Args:
        context: The run.
        finals: Finished finals of every plan.
    """
    found: dict[str, list[float]] = {name: [] for name in finals}
    for seed in sorted({seed for jobs in finals.values() for seed in jobs}):
        results = {name: context.run.result(jobs[seed].id) for name, jobs in finals.items() if seed in jobs}
        known = {name: result for name, result in results.items() if result is not None}
        for name, score in rung_scores(context.suite, context.plans, known, context.settings.weights).items():
            found[name].append(score)
    scores = {name: mean(values) for name, values in found.items() if values}
    best = max(scores.values(), default=0.0)
    # Nothing is known against a plan without a score.
    return [name for name in finals if scores.get(name, best) >= best - MOST_BEHIND]


def reserved_seconds(context: RunContext[Any], outcome: RaceOutcome, tasks: Sequence[str]) -> float:
    """Return the seconds that controls, affinity, verdict and the models on all rows will take.

    Args:
        context: The run.
        outcome: Gives the finished finals and the plan of the controls.
        tasks: Tasks with a control.
    """
    settings, schedule, finals = context.settings, context.schedule, outcome.finals
    checked = finals.get(outcome.control_plan or "")
    checks = plan_seconds(context, checked) * (len(tasks) * schedule.control_seeds + 0.4) if checked else 0.0
    left, limit = seconds_left(context) or 0.0, settings.time_limit or 0.0
    refits = longest = 0.0
    if settings.refit and schedule.final_rows:
        # The choice is not known yet: the slowest finalist that sees all rows in every step.
        most = WHOLE_SHARE * limit
        longest = min(most, max(time_for_all_rows(context, finals, most).values(), default=0.0))
    elif settings.refit and finals:
        parts = max(schedule.refits or 0, 1)
        likely = {name: finals[name] for name in likely_choices(context, finals)}
        # One of several parts leaves out as many rows as finals did.
        each = (
            whole_seconds(context, likely) if parts == 1 else {name: plan_seconds(context, one) for name, one in likely.items()}
        )
        longest = max(each.values(), default=0.0)
        refits = parts * max(longest, 0.0 if settings.single else REFIT_PLANS * sum(each.values()))
    verdict = max(min(VERDICT_SECONDS, 0.1 * left), VERDICT_SHARE * limit)
    return max((checks + refits) / max(1, settings.num_workers), longest) + verdict + INSPECTION_SHARE * limit

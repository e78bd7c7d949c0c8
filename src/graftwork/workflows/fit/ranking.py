"""Who is ahead, who stays: scores of a rung from validation metrics, and the choice of survivors. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.delta_m import relative_change
from graftwork.evaluation.metrics import default_metric
from graftwork.workflows.runs.horizons import kept_groups, shared_plans
from graftwork.workflows.runs.job_data import primary_scores

__all__ = [
    "best_of",
    "control_tasks",
    "finalists_of",
    "is_trained",
    "mean_change",
    "rung_scores",
    "survivors_of",
    "task_changes",
]


def task_changes(suite: Suite, validation: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """Return the relative change of each task's primary validation metric, percent, positive is better; NaN if unknown."""
    values, base = primary_scores(dict(validation), suite), primary_scores(dict(reference), suite)
    return {task.name: relative_change(default_metric(task), values[task.name], base[task.name]) for task in suite.tasks}


def mean_change(
    suite: Suite, validation: Mapping[str, Any], reference: Mapping[str, Any], weights: Mapping[str, float] | None = None
) -> float | None:
    """Return the weighted mean of :func:`task_changes` over the tasks that have a metric; None without any."""
    known = {task: value for task, value in task_changes(suite, validation, reference).items() if math.isfinite(value)}
    share = {task: (weights or {}).get(task, 1.0) for task in known}
    return sum(share[task] * value for task, value in known.items()) / sum(share.values()) if known else None


def is_trained(result: Mapping[str, Any]) -> bool:
    """Return whether a training ended well with a step at least: one that was cut before its first step has learned nothing."""
    return result["status"] == "ok" and int(result.get("steps", 1)) > 0


def rung_scores(
    suite: Suite,
    plans: Mapping[str, Plan],
    results: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return the score of every plan that ended well: mean relative change against the separate models at the same rung.

    Args:
        suite: The suite.
        plans: Plans by name.
        results: ``{plan: job result}``.
        weights: Weights of tasks in the mean, above 0; tasks without one weigh 1.

    Returns:
        Percent; plans without any usable metric are missing. If the separate models themselves failed, the first plan that did
        not takes their place.
    """
    fine = {name: result for name, result in results.items() if is_trained(result)}
    # Without a reference all changes are relative to some plan, which still puts the plans in order.
    reference = next((name for name in fine if plans[name].role == "reference"), next(iter(fine), None))
    scores = {}
    for name, result in fine.items():
        # Plans are scored by the tasks that have a metric; a task without validation labels counts for nobody.
        change = mean_change(suite, result["validation"], fine[reference]["validation"], weights) if reference else None
        if change is not None:
            scores[name] = change
    return scores


def best_of(plans: Iterable[Plan], scores: Mapping[str, float]) -> str | None:
    """Return the name of the plan with the best score; the earlier one in a tie; None if none has one."""
    names = [plan.name for plan in plans if plan.name in scores]
    return max(names, key=lambda name: scores[name]) if names else None


def _references(plans: Mapping[str, Plan], scores: Mapping[str, float]) -> list[str]:
    # References stay whatever their score: without them later gains could not be attributed.
    groups = [*kept_groups(plans.values()), shared_plans(plans.values())]
    found = [best_of(group, scores) for group in groups]
    return [name for name in found if name is not None]


def survivors_of(plans: Mapping[str, Plan], scores: Mapping[str, float]) -> list[str]:
    """Return the better half of the plans, and the references, in the order of the portfolio."""
    ranked = sorted(scores, key=lambda name: -scores[name])
    kept = set(ranked[: math.ceil(len(ranked) / 2)]) | set(_references(plans, scores))
    return [name for name in plans if name in kept]


def finalists_of(plans: Mapping[str, Plan], scores: Mapping[str, float], number: int) -> list[str]:
    """Return the best ``number`` plans, and the references, in the order of the portfolio."""
    ranked = sorted(scores, key=lambda name: -scores[name])
    kept = set(ranked[:number]) | set(_references(plans, scores))
    return [name for name in plans if name in kept]


def control_tasks(changes: Mapping[str, float], most: int) -> list[str]:
    """Return the tasks whose control is worth its time: those with the largest gain or loss, in the order of the suite."""
    # Unknown changes go last: they cannot be the largest.
    ranked = sorted(changes, key=lambda name: -abs(changes[name]) if math.isfinite(changes[name]) else math.inf)
    kept = set(ranked[:most])
    return [name for name in changes if name in kept]

"""The ensemble of a race: finished plans, averaged task by task with weights from rows that none of them learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite, labelled_rows
from graftwork.evaluation.choice.blend import can_blend, crossed_blend, error_gram, greedy_weights, row_parts
from graftwork.evaluation.choice.mixed import crossed_answers
from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.combined import Combined, combined_run, scores_without_parts, side_by_side

__all__ = ["ENSEMBLE", "build_ensemble", "chosen_again"]

ENSEMBLE = "ensemble"
"""Name of the plan."""
LEAST_WEIGHT = 0.02

Array = NDArray[Any]


def build_ensemble(suite: Suite, answers: Mapping[str, Sequence[Answers]]) -> Combined | None:
    """Choose weights on validation rows; None if there are fewer than two plans, or no task is better off with several of them.

    What the ensemble answers for a row is averaged with weights that the labels of this row took no part in; answers that cannot be
    averaged, such as maps, are those of a plan that they took no part in choosing.

    Args:
        suite: The judged suite.
        answers: ``{plan: runs}``; plans that lack a run which others have are left out.
    """
    plans, runs = side_by_side(answers)
    if len(plans) < 2:
        return None
    row_part = row_parts(len(suite), suite.groups)
    chosen: dict[str, NDArray[np.float64]] = {}
    answered: list[dict[str, dict[str, Array]]] = [{"test": {}, "val": {}} for _ in runs]
    for task in suite.tasks:
        chosen[task.name] = _blend_task(suite, task, plans, runs, row_part, answered)
    weights = {
        plan: {task: float(found[number]) for task, found in chosen.items() if found[number] > 0}
        for number, plan in enumerate(plans)
        if any(found[number] > 0 for found in chosen.values())
    }
    # One plan for each task is no average: that is the mixed plan, whose plans are chosen for it.
    if len(weights) < 2 or one_plan_a_task(weights):
        return None
    finals = tuple(combined_run(suite, ENSEMBLE, parts[0], answered[number]) for number, parts in enumerate(runs))
    title = f"Weighted average of {', '.join(weights)}, with weights for each task"
    return Combined(name=ENSEMBLE, title=title, weights=weights, runs=finals)


def chosen_again(
    suite: Suite,
    rows: NDArray[np.int64],
    predictions: Mapping[str, Mapping[str, Array]],
    weights: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """Return weights that are best on rows from which none of the members learned; plans without any are left out.

    Args:
        suite: The suite.
        rows: Row numbers, ``[N]``.
        predictions: ``{plan: {task: answers}}`` for them.
        weights: The weights so far, ``{plan: {task: weight}}``; tasks whose answers cannot be averaged, or without a label in
            these rows, keep them.
    """
    plans = list(weights)
    found: dict[str, dict[str, float]] = {plan: {} for plan in plans}
    for task in suite.tasks:
        target = np.asarray(suite.targets[task.name])
        own = np.array([weights[plan].get(task.name, 0.0) for plan in plans])
        if can_blend(task, target) and labelled_rows(target[rows]).any():
            own = _kept(greedy_weights(error_gram(task, target[rows], [predictions[plan][task.name] for plan in plans])))
        for plan, weight in zip(plans, own, strict=True):
            if weight > 0:
                found[plan][task.name] = float(weight)
    return {plan: one for plan, one in found.items() if one}


def _kept(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights without those that cost a member and change nothing."""
    kept = np.where(weights >= LEAST_WEIGHT, weights, 0.0)
    return kept / kept.sum()


def _blend_task(
    suite: Suite,
    task: TaskSpec,
    plans: Sequence[str],
    runs: Sequence[Sequence[Answers]],
    row_part: NDArray[np.int64],
    answered: Sequence[dict[str, dict[str, Array]]],
) -> NDArray[np.float64]:
    """Return the weights of the plans for one task; write the answers of every run. ``row_part`` is the part of every row."""
    target = np.asarray(suite.targets[task.name])
    if not can_blend(task, target):
        return _pick_for_task(suite, task, runs, row_part, answered)
    rows = np.concatenate([parts[0].val_rows for parts in runs])
    predictions = [np.concatenate([parts[index].val[task.name] for parts in runs]) for index in range(len(plans))]
    asked = {}
    for number, parts in enumerate(runs):
        asked[f"test {number}"] = (suite.splits["test"], [np.asarray(one.final.predictions[task.name]) for one in parts])
        asked[f"val {number}"] = (parts[0].val_rows, [one.val[task.name] for one in parts])
    weights, found = crossed_blend(task, target[rows], rows, predictions, asked, row_part)
    for number in range(len(runs)):
        answered[number]["test"][task.name] = found[f"test {number}"]
        answered[number]["val"][task.name] = found[f"val {number}"]
    return _kept(weights)


def _pick_for_task(
    suite: Suite,
    task: TaskSpec,
    runs: Sequence[Sequence[Answers]],
    row_part: NDArray[np.int64],
    answered: Sequence[dict[str, dict[str, Array]]],
) -> NDArray[np.float64]:
    """Return 1 for the plan that is best for a task whose answers cannot be averaged, and 0 for the others; write the answers of
    every run, those of a validation row by the plan that the rows of other parts pick (but for kinds whose answers of several models
    cannot stand side by side, which are answered by the best plan alone)."""
    scores = scores_without_parts(suite, task, runs, row_part)
    best = _best(scores[0])
    # Vectors of two models lie in two spaces: they would be far from each other whatever the rows are.
    crosses = not task_kind(task).own_space
    without = np.array([_best(one, best) if crosses else best for one in scores[1:]])
    choosing = np.unique(np.concatenate([parts[0].val_rows for parts in runs]))
    for number, parts in enumerate(runs):
        answered[number]["test"][task.name], answered[number]["val"][task.name] = (
            crossed_answers(best, without, rows, row_part, choosing, lambda plan, own=own: own[plan][task.name])  # type: ignore[misc]
            for rows, own in (
                (suite.splits["test"], [one.final.predictions for one in parts]),
                (parts[0].val_rows, [one.val for one in parts]),
            )
        )
    return np.eye(len(scores[0]))[best]


def _best(scores: NDArray[np.float64], otherwise: int = 0) -> int:
    """Return the number of the largest score; ``otherwise`` if none is known."""
    return int(np.nanargmax(scores)) if np.isfinite(scores).any() else otherwise

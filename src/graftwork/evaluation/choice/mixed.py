"""One plan for each task: which ones, from validation rows, and what such a choice answers for rows that took no part in it.

The best of several plans on few rows owes a part of its score to luck, and choosing task by task repeats that. So every row is
answered by the plans that the other parts of the rows choose: scores of the mixed plan are those of the choosing, luck left out.
A plan more is another model to serve. The fewest plans are taken with which every task has one that is not behind its best plan by
more than what counts as an effect; each task then takes the best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.evaluation.choice.blend import MOST_MEMBERS, PARTS
from graftwork.evaluation.choice.validation_table import task_scale
from graftwork.evaluation.choice.word import MINIMAL_EFFECT
from graftwork.evaluation.metrics import default_metric, find_metric, prepare_metric
from graftwork.interfaces.metric import Array, Floats
from graftwork.math.weighted_sums import mean_of_columns

__all__ = ["Picks", "crossed_answers", "pick_plans", "picks_of", "scores_by_part"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Picks:
    """Which plans are picked, by their numbers."""

    tasks: Ints
    """The plan of each task, from all rows, ``[T]``."""
    best: int
    """The plan that is best over all tasks."""
    tasks_without: Ints
    """The same from all rows but those of one part, ``[PARTS, T]``."""
    best_without: Ints
    """The same, ``[PARTS]``."""

    def alone(self) -> Picks:
        """Return the picks of whoever takes the one best plan for all tasks."""
        without = np.repeat(self.best_without[:, None], len(self.tasks), axis=1)
        return Picks(np.full_like(self.tasks, self.best), self.best, without, self.best_without)


def scores_by_part(task: TaskSpec, target: Array, prediction: Array, parts: Ints, trainings: Ints) -> Floats:
    """Return the primary metric with its sign turned so that larger is better: of all rows, and of all but each part's.

    Args:
        task: The task.
        target: Truth of the validation rows, ``[N, ...]``.
        prediction: A plan's answers for them.
        parts: From :func:`graftwork.evaluation.choice.blend.row_parts`, ``[N]``.
        trainings: Which training answered each row, ``[N]``; the mean over trainings counts, as in
            :class:`~graftwork.evaluation.choice.validation_table.ValidationTable`.

    Returns:
        ``[1 + PARTS]``; NaN where it is not defined.
    """
    metric = default_metric(task)
    rows = []
    for training in np.unique(trainings):
        own = trainings == training
        weights = np.stack([np.ones(int(own.sum())), *((parts[own] != number).astype(np.float64) for number in range(PARTS))])
        rows.append(prepare_metric(task, target[own], prediction[own], metric)(weights))
    sign = 1.0 if find_metric(metric).higher_is_better else -1.0
    found: Floats = sign * mean_of_columns(np.stack(rows, axis=1))
    return found


def pick_plans(percent: Floats, share: Floats) -> tuple[Ints, int]:
    """Return the plan of each task, ``[T]``, and the plan that is best over all tasks.

    Args:
        percent: Validation scores in percent of the best plan's, larger is better, ``[P, T]``; NaN is unknown.
        share: Weights of the tasks in the mean, ``[T]``.

    Example:
        >>> pick_plans(np.array([[100.0, 90.0, 99.8], [80.0, 100.0, 100.0]]), np.ones(3))[0].tolist()
        [0, 1, 1]
    """
    known = np.isfinite(percent).any(axis=0)
    scores = np.where(np.isfinite(percent), percent, -np.inf)
    # A plan without a score of some task cannot be the one for all.
    means = scores[:, known] @ share[known] if known.any() else np.zeros(len(scores))
    best = int(np.argmax(means))
    near = scores >= scores.max(axis=0) - MINIMAL_EFFECT
    members, left = [best], known & ~near[best]
    while left.any() and len(members) < MOST_MEMBERS:
        covered = near[:, left].sum(axis=1)
        # Of those that serve as many tasks, the one that serves them best.
        gained = np.where(near[:, left], scores[:, left], 0.0).sum(axis=1)
        members.append(max(range(len(scores)), key=lambda plan: (covered[plan], gained[plan])))
        left &= ~near[members[-1]]
    return np.array(members, dtype=np.int64)[np.argmax(scores[members], axis=0)], best


def picks_of(scores: Floats, tasks: Sequence[TaskSpec], weights: Mapping[str, float] | None = None) -> Picks:
    """Return which plan each task takes, from all rows and from all but each part's.

    Args:
        scores: From :func:`scores_by_part`, ``[1 + PARTS, P, T]``.
        tasks: The tasks.
        weights: Weights of tasks in means over them, above 0; tasks without one weigh 1.
    """
    share = np.array([(weights or {}).get(task.name, 1.0) for task in tasks])
    found = []
    for table in scores:
        scales = np.array([task_scale(task, table[:, index]) for index, task in enumerate(tasks)])
        found.append(pick_plans(100.0 * table / scales, share))
    picked, best = np.stack([one for one, _ in found]), np.array([one for _, one in found], dtype=np.int64)
    return Picks(picked[0], int(best[0]), picked[1:], best[1:])


def crossed_answers(
    picked: int, picked_without: Ints, rows: Ints, parts: Ints, choosing: Ints, answers: Callable[[int], Array]
) -> Array:
    """Return the answers of a task for some rows, each by the plan that the rows of other parts picked.

    Args:
        picked: The plan that all rows picked.
        picked_without: The plan that all but those of one part picked, ``[PARTS]``.
        rows: Numbers of the rows, ``[N]``.
        parts: Part of every row of the suite.
        choosing: Numbers of the rows from which plans were picked; others are answered by ``picked``.
        answers: Gives the answers of a plan, by its number, for the rows, ``[N, ...]``.
    """
    found = np.array(answers(picked))
    took_part = np.isin(rows, choosing)
    for number, plan in enumerate(picked_without):
        own = took_part & (parts[rows] == number)
        if plan != picked and own.any():
            found[own] = np.asarray(answers(int(plan)))[own]
    return found

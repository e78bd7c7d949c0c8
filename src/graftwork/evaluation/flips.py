"""What changes between two models, row by row: rows that turn right or wrong, and how near each is to a third one. Pure functions
on arrays ``[S, N]``: seeds by rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftwork.core.optional import require
from graftwork.core.records import Interval, TaskSpec
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.thresholds import chosen_class, says_yes

__all__ = ["Flips", "count_flips", "distances", "mean_of_rows", "right_rows", "same_rows"]


@dataclass(frozen=True, slots=True)
class Flips:
    """Shares of the rows with a label, mean over seeds."""

    positive: float
    """Wrong before, right after."""
    negative: float
    """Right before, wrong after."""
    net: Interval
    """Positive minus negative: the change of the accuracy."""
    rows: int
    """Rows with a label."""


def right_rows(spec: TaskSpec, target: Array, answers: Array) -> Floats | None:
    """Return for each row whether the answer is right, 1 or 0, NaN without a label; None for tasks of numbers or positions.

    Of several labels a row all must be right. Decisions are those of the metrics (:mod:`graftwork.tasks.thresholds`), so that the mean is
    the accuracy.

    Args:
        spec: The task.
        target: ``[N, ...]``.
        answers: As ``Learner.predict`` lays them out.
    """
    columns = task_kind(spec).label_columns(spec, target)
    if not columns or spec.positions or any(column.form == "number" for column in columns):
        return None
    if len(columns) == 1 and columns[0].form == "classes":
        labels = np.asarray(columns[0].values)
        return np.where(labels >= 0, _classes(spec, answers) == labels, np.nan)
    values = np.stack([np.asarray(column.values, dtype=np.float64) for column in columns], axis=1)
    said = says_yes(spec, answers.reshape(len(answers), -1))
    right = ((said == (values >= 0.5)) | np.isnan(values)).all(axis=1)
    return np.where(np.isnan(values).all(axis=1), np.nan, right)


def same_rows(spec: TaskSpec, target: Array, one: Array, two: Array) -> Floats | None:
    """Return for each row whether two models say the same, 1 or 0; None for tasks of numbers or positions.

    Args:
        spec: The task.
        target: ``[N, ...]``; says what the task is made of, no label is read.
        one: Answers as ``Learner.predict`` lays them out.
        two: Likewise.
    """
    if right_rows(spec, target[:1], one[:1]) is None:
        return None
    columns = task_kind(spec).label_columns(spec, target[:1])
    if len(columns) == 1 and columns[0].form == "classes":
        return np.asarray(_classes(spec, one) == _classes(spec, two), dtype=np.float64)
    both = [says_yes(spec, part.reshape(len(part), -1)) for part in (one, two)]
    return np.asarray((both[0] == both[1]).all(axis=1), dtype=np.float64)


def distances(one: Array, two: Array) -> Floats:
    """Return how far two models' numbers are apart in each row, ``[N]``: the mean absolute difference over the standard deviation
    of the first one's numbers."""
    first, second = (part.reshape(len(part), -1).astype(np.float64) for part in (one, two))
    spread = first.std(axis=0)
    return np.asarray((np.abs(first - second) / np.where(spread > 0, spread, 1.0)).mean(axis=1))


def count_flips(before: Floats, after: Floats, groups: Array | None = None, *, exchange: float = 0.0) -> Flips:
    """Return the flips from one model to another.

    Args:
        before: Whether each row is right, ``[S, N]``, NaN without a label; seeds are paired.
        after: Likewise.
        groups: Group of each row, ``[N]``; rows of a group are not independent.
        exchange: See :func:`mean_of_rows`.
    """
    known = ~np.isnan(before[0])
    one, two = before[:, known], after[:, known]
    own = None if groups is None else groups[known]
    return Flips(
        positive=float(((one == 0) & (two == 1)).mean()) if known.any() else float("nan"),
        negative=float(((one == 1) & (two == 0)).mean()) if known.any() else float("nan"),
        net=mean_of_rows(two - one, own, exchange=exchange),
        rows=int(known.sum()),
    )


def mean_of_rows(values: Floats, groups: Array | None = None, *, exchange: float = 0.0, level: float = 0.95) -> Interval:
    """Return the mean over seeds and rows with an interval over both.

    The errors over rows (or groups) and over seeds add up; Student's t has the degrees of freedom of Welch and Satterthwaite. One
    seed tells nothing of other seeds: then the bounds are NaN.

    Args:
        values: ``[S, N]``, finite.
        groups: Group of each row, ``[N]``.
        exchange: Rows that seeds exchange with the training rows, as a share of those (see :mod:`graftwork.evaluation.paired`).
        level: Confidence, in (0, 1).
    """
    seeds, rows = values.shape
    value = float(values.mean()) if values.size else float("nan")
    nothing = Interval(value, float("nan"), float("nan"), level)
    by_row = values.mean(axis=0) - value
    if groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        by_row = np.bincount(places, weights=by_row)  # sums: groups differ in size
    if seeds < 2 or len(by_row) < 2:
        return nothing
    units = len(by_row)
    over_rows = float(np.sqrt((by_row**2).sum() * units / (units - 1))) / rows
    over_seeds = float(values.mean(axis=1).std(ddof=1) * np.sqrt(1.0 / seeds + exchange))
    error = float(np.hypot(over_rows, over_seeds))
    if error <= 0:  # both models say the same everywhere
        return Interval(value, value, value, level) if value == 0 else nothing
    degrees = error**4 / (over_rows**4 / (units - 1) + over_seeds**4 / (seeds - 1))
    student = require("scipy.stats", extra="train", purpose="An interval over rows and seeds").t
    margin = float(student.ppf((1 + level) / 2, degrees)) * error
    return Interval(value, value - margin, value + margin, level)


def _classes(spec: TaskSpec, answers: Array) -> Array:
    # Of two classes the answer is the probability of the second one.
    if answers.ndim == 1 or answers.shape[1] == 1:
        return says_yes(spec, answers.reshape(len(answers))).astype(np.int64)
    return chosen_class(spec, answers)

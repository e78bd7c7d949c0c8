"""Thresholds that serve the metric, chosen on rows that were kept back: of yes-or-no questions one half where nothing else is clearly
better, and of several classes none, which is the most probable class.

A threshold is the median of those that are best on resamples of the rows, which varies less than the best one of the rows themselves.
Whether it helps is seen by cross-fitting, as for corrections of probabilities (:mod:`graftwork.evaluation.correction_fit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.evaluation.class_thresholds import (
    DRAWS,
    LEAST_OF_AN_ANSWER,
    choose_class_thresholds,
    draws_of_units,
    score_of_decisions,
)
from graftwork.evaluation.correction_fit import PARTS, Units, parts_of_units
from graftwork.evaluation.metrics import default_metric, find_metric
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.thresholds import KEY, chosen_class, says_yes, with_thresholds

__all__ = ["FittedThresholds", "choose_threshold", "kept_thresholds", "needs_thresholds"]

LEAST_ROWS = 40
"""Labelled rows (or groups) from which on another threshold than one half is tried."""
CLEAR = 1.645
"""Standard errors by which the metric must be better on other rows."""
_CANDIDATES = 40
_DRAWS_OF_GAINS = 200
_MOST_ROWS = 10_000
"""Rows that are looked at; of more, evenly spread ones."""
_MOST_CELLS = 200_000
"""Likewise, rows times classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedThresholds:
    """What came of it, with numbers of rows that took no part in the choice."""

    thresholds: tuple[float, ...]
    """One for each question or class; empty for one half everywhere, and for the most probable class."""
    metric: str
    score: tuple[float, float]
    """Without the thresholds, and with them."""
    why_not: str = ""
    """Why there are none; empty if there are."""
    of_classes: bool = False
    """Whether there is one for each of several classes, not for each question."""
    decided: Array | None = field(default=None, compare=False, repr=False)
    """Decisions for the given rows, laid out as probabilities, each by thresholds that other rows chose: what is counted on these rows is
    counted of them. None without thresholds."""


def needs_thresholds(task: TaskSpec) -> bool:
    """Return whether a task is judged by what is decided, not by the order of rows or probabilities, and other decisions than the
    obvious ones can serve it: yes-or-no questions, and several classes if the metric counts all of them alike."""
    kind, metric = task_kind(task), find_metric(default_metric(task))
    return (kind.has_thresholds and metric.of_decisions) or (kind.has_class_thresholds and metric.of_classes)


def kept_thresholds(task: TaskSpec, target: Array, prediction: Array, units: Units) -> FittedThresholds | None:
    """Choose thresholds and look whether they help; None if the task needs none, or no row has a label.

    Args:
        task: The task; its own thresholds do not count.
        target: Truth of ``N`` rows that the model did not learn from.
        prediction: Its probabilities, ``[N]`` or ``[N, size]``.
        units: Which rows belong together, as for :func:`graftwork.evaluation.correction_fit.kept_correction`.
    """
    if not needs_thresholds(task):
        return None
    task = replace(task, details={name: value for name, value in task.details.items() if name != KEY})
    target, prediction = np.asarray(target), np.asarray(prediction)
    answers = prediction
    known = np.flatnonzero(labelled_rows(target) & np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1))
    if not len(known):
        return None
    of_classes = task_kind(task).has_class_thresholds
    known = known[:: -(-len(known) // (min(_MOST_ROWS, max(_MOST_CELLS // task.size, 1000)) if of_classes else _MOST_ROWS))]
    target, prediction, of_row = target[known], prediction[known], np.unique(units[known], return_inverse=True)[1].reshape(-1)
    choose = choose_class_thresholds if of_classes else _choose
    metric, plain = default_metric(task), _decided(task, prediction)
    before = score_of_decisions(task, target, plain, np.ones((1, len(target))))[0]
    number = int(of_row.max()) + 1
    if number < LEAST_ROWS:
        why_not = f"{number} labelled rows are too few"
        return FittedThresholds(thresholds=(), metric=metric, score=(before, before), why_not=why_not, of_classes=of_classes)
    crossed, part = plain.copy(), parts_of_units(of_row)
    for one in range(PARTS):
        own = part == one
        if own.any() and not own.all():
            chosen = choose(task, target[~own], prediction[~own], _counted(of_row[~own]))
            crossed[own] = _decided(with_thresholds(task, chosen.tolist()), prediction[own])
    draws = draws_of_units(of_row, _DRAWS_OF_GAINS)
    sign = 1.0 if find_metric(metric).higher_is_better else -1.0
    gains = sign * (score_of_decisions(task, target, crossed, draws) - score_of_decisions(task, target, plain, draws))
    after = score_of_decisions(task, target, crossed, np.ones((1, len(target))))[0]
    gain = sign * (after - before)
    if not gain > CLEAR * float(np.nanstd(gains)) or not gain > 0:
        why_not = "no other threshold was clearly better on other rows"
        return FittedThresholds(thresholds=(), metric=metric, score=(before, before), why_not=why_not, of_classes=of_classes)
    final = tuple(choose(task, target, prediction, of_row).tolist())
    # Rows that were not looked at take no part in the choice, so that they are decided as new rows are.
    decided = _decided(with_thresholds(task, final), answers)
    decided[known] = crossed
    return FittedThresholds(thresholds=final, metric=metric, score=(before, after), of_classes=of_classes, decided=decided)


def _decided(task: TaskSpec, prediction: Array) -> Array:
    """Return decisions in the form of probabilities: yes or no, or 1 for the class that is chosen and 0 for the others."""
    if task_kind(task).has_class_thresholds:
        return np.asarray(chosen_class(task, prediction)[:, None] == np.arange(prediction.shape[1]))
    return says_yes(task, prediction)


def choose_threshold(task: TaskSpec, target: Array, prediction: Array, units: Units) -> float:
    """Return the threshold of a task of one question.

    Args:
        task: Of size 1.
        target: Truth of ``N`` rows, all of which have a label.
        prediction: Probabilities, ``[N]`` or ``[N, 1]``.
        units: Which rows belong together, counted from 0.
    """
    flat = prediction.reshape(-1).astype(np.float64)
    places = np.unique(np.quantile(flat, np.linspace(0.0, 1.0, _CANDIDATES + 2)))
    found = 0.5 * (places[1:] + places[:-1])
    # From the middle outwards: of equally good ones, the first counts.
    found = np.unique(np.concatenate([found[(found > 0.0) & (found < 1.0)], [0.5]]))
    found = found[np.argsort(np.abs(found - 0.5), kind="stable")]
    draws = draws_of_units(units, DRAWS)
    sign = 1.0 if find_metric(default_metric(task)).higher_is_better else -1.0
    scores = np.stack([sign * score_of_decisions(task, target, prediction > limit, draws) for limit in found])
    best = np.nan_to_num(scores, nan=-np.inf).argmax(axis=0)
    return float(f"{np.clip(np.median(found[best]), 1e-4, 1 - 1e-4):.4g}")


def _choose(task: TaskSpec, target: Array, prediction: Array, units: Units) -> Floats:
    """Return the threshold of every question, ``[size]``; one half where answers are too rare."""
    found = np.full(task.size, 0.5)
    for index in range(task.size):
        column = (
            target if target.ndim == 1 else target[:, [index]],
            prediction if prediction.ndim == 1 else prediction[:, [index]],
        )
        flat = column[0].reshape(-1)
        known = labelled_rows(flat)
        yes = int((flat[known] == 1).sum())
        if min(yes, int(known.sum()) - yes) >= LEAST_OF_AN_ANSWER:
            alone = replace(task, size=1, classes=task.classes if target.ndim == 1 else task.classes[index : index + 1])
            found[index] = choose_threshold(alone, column[0][known], column[1][known], _counted(units[known]))
    return found


def _counted(units: Units) -> Units:
    return np.asarray(np.unique(units, return_inverse=True)[1].reshape(-1))

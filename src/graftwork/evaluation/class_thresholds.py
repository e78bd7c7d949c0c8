"""A threshold for each of several classes that serves the metric: first one number that makes rare classes more likely to be chosen,
then each class by itself. As for yes-or-no questions, each is the median of those that are best on resamples of the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.evaluation.correction_fit import Units
from graftwork.evaluation.metrics import default_metric, find_metric, prepare_metric
from graftwork.interfaces.metric import Array, Floats
from graftwork.tasks.thresholds import chosen_class, with_thresholds

__all__ = ["DRAWS", "LEAST_OF_AN_ANSWER", "choose_class_thresholds", "draws_of_units", "score_of_decisions"]

LEAST_OF_AN_ANSWER = 15
"""Rows of an answer that its threshold needs."""
DRAWS = 20
MOST_CLASSES = 30
"""Of more classes none is looked at by itself."""
_POWERS = tuple(np.linspace(0.0, 1.25, 11).tolist())
"""Of the frequency of classes: 0 chooses the most probable class, 1 the one that is most probable beside its frequency."""
_FACTORS = (1.0, *(2.0**step for place in (0.25, 0.5, 0.75, 1.0) for step in (-place, place)))
"""The first of equally good ones counts, so that it is the smallest change."""


def choose_class_thresholds(task: TaskSpec, target: Array, prediction: Array, units: Units) -> Floats:
    """Return a threshold for each class, ``[C]``, with a sum of 1.

    Args:
        task: Of one of several classes.
        target: Truth of ``N`` rows, all of which have a label.
        prediction: Probabilities, ``[N, C]``.
        units: Which rows belong together, counted from 0.
    """
    counts = np.bincount(target, minlength=task.size)
    enough = counts >= LEAST_OF_AN_ANSWER
    found = np.full(task.size, 1.0 / task.size)
    if enough.sum() < 2:
        return found
    draws = draws_of_units(units, DRAWS)

    def best(options: Sequence[float], limits: Callable[[float], Floats]) -> float:
        """Return the median of the options that are best on resamples."""
        scores = [_score(task, target, prediction, limits(option), draws) for option in options]
        return float(np.median(np.asarray(options)[np.nan_to_num(np.stack(scores), nan=-np.inf).argmax(axis=0)]))

    # Classes that are too rare count as frequent as the rarest of the others.
    shares = np.maximum(counts, counts[enough].min()) / counts.sum()
    power = best(_POWERS, lambda option: shares**option)
    found = shares**power
    for index in np.argsort(counts, kind="stable") if task.size <= MOST_CLASSES else ():
        if enough[index]:
            found = _times(found, int(index), best(_FACTORS, partial(_times, found, int(index))))
    return np.array([float(f"{one:.4g}") for one in np.clip(found / found.sum(), 1e-6, 1 - 1e-6)])


def _times(limits: Floats, index: int, factor: float) -> Floats:
    found = limits.copy()
    found[index] *= factor
    return found


def _score(task: TaskSpec, target: Array, prediction: Array, limits: Floats, draws: Floats) -> Floats:
    chosen = chosen_class(with_thresholds(task, (limits / limits.sum()).tolist()), prediction)
    sign = 1.0 if find_metric(default_metric(task)).higher_is_better else -1.0
    return sign * score_of_decisions(task, target, chosen[:, None] == np.arange(prediction.shape[1]), draws)


def draws_of_units(units: Units, number: int) -> Floats:
    """Return row weights of resamples of the units, ``[number, N]``."""
    size = int(units.max(initial=0)) + 1
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1.0 / size), size=number)
    return np.asarray(drawn[:, units], dtype=np.float64)


def score_of_decisions(task: TaskSpec, target: Array, decided: Array, weights: Floats) -> Floats:
    """Return the metric of decisions, laid out as probabilities, under row weights ``[B, N]``."""
    return np.asarray(prepare_metric(task, target, decided.astype(np.float32))(weights))

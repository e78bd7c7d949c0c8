"""Weights for an average of several plans' predictions, task by task, from rows that none of them learned from.

Greedy selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models"): the best plan first, then
again and again the one that lowers the squared error of the average most. Of probabilities the squared error is the Brier score,
so both kinds of tasks need the plans' Gram matrix of errors only, and no pass over the rows for each candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import task_kind

__all__ = ["can_blend", "crossed_blend", "error_gram", "greedy_weights", "mix", "row_parts"]

Ints = NDArray[np.int64]

ROUNDS = 40
"""Picks; a plan's weight is the share of them that it got."""
MOST_MEMBERS = 5
"""Plans that an average has at most: each costs time and space where it is used."""
_WORST = 1e6
"""Error of an answer that is no number, or infinite."""
PARTS = 5
"""Parts of the rows; those of one part are predicted with weights from the others."""


def row_parts(num_rows: int, groups: Array | None = None) -> Ints:
    """Return the part of each row of a suite, ``[N]``, in ``range(PARTS)``; rows of one group are in one part.

    Args:
        num_rows: Rows of the suite.
        groups: Group of each row, ``[N]``, or None.
    """
    units = np.arange(num_rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    found: Ints = (np.random.default_rng(0).permutation(int(units.max(initial=0)) + 1) % PARTS)[units]
    return found


def can_blend(task: TaskSpec, target: Array) -> bool:
    """Return whether predictions of a task can be averaged: it is made of classes or numbers."""
    return bool(task_kind(task).label_columns(task, np.asarray(target)))


def _errors(task: TaskSpec, target: Array, predictions: Sequence[Array]) -> Floats:
    """Return the errors of all plans, ``[P, N, C]``, in standard deviations for numbers; 0 where there is no label."""
    found: Floats = np.stack([np.asarray(one, dtype=np.float64).reshape(len(one), -1) for one in predictions])
    wanted: list[Floats] = []
    for column in task_kind(task).label_columns(task, np.asarray(target)):
        values = np.asarray(column.values, dtype=np.float64)
        known = values >= 0 if column.form == "classes" else ~np.isnan(values)
        if column.form == "classes" and found.shape[2] > 1:
            hits = (values[:, None] == np.arange(found.shape[2])).astype(np.float64)
        else:
            hits = values[:, None]
        wanted += list(np.where(known[:, None], hits, np.nan).T)
    truth: Floats = np.stack(wanted, axis=1)
    errors = found - truth
    if task.scale:
        errors /= np.asarray(task.scale, dtype=np.float64).reshape(-1)
    # An answer that is no number is as far off as can be: it must not pass for a right one.
    return np.where(np.isnan(truth), 0.0, np.nan_to_num(errors, nan=_WORST, posinf=_WORST, neginf=-_WORST))


def error_gram(task: TaskSpec, target: Array, predictions: Sequence[Array]) -> Floats:
    """Return the mean products of the plans' errors, ``[P, P]``: ``w @ gram @ w`` is the squared error of a weighted average.

    Args:
        task: A task that :func:`can_blend`.
        target: Truth of ``N`` rows; unlabelled ones do not count.
        predictions: One array a plan, as learners lay them out.
    """
    errors = _errors(task, target, predictions).reshape(len(predictions), -1)
    return errors @ errors.T / max(1, len(target))


def greedy_weights(gram: Floats) -> Floats:
    """Return weights ``[P]`` that are not negative and sum to 1.

    Example:
        >>> greedy_weights(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 9.0]])).tolist()
        [0.5, 0.5, 0.0]
    """
    counts = np.zeros(len(gram))
    best, kept = np.inf, counts
    for number in range(1, ROUNDS + 1):
        now = counts @ gram @ counts
        loss = (now + 2.0 * gram @ counts + np.diag(gram)) / number**2
        if (counts > 0).sum() >= MOST_MEMBERS:
            loss = np.where(counts > 0, loss, np.inf)
        pick = int(np.argmin(loss))
        counts = counts.copy()
        counts[pick] += 1
        if loss[pick] < best * (1 - 1e-6):
            best, kept = float(loss[pick]), counts
    return kept / kept.sum()


def mix(predictions: Sequence[Array], weights: Floats) -> Array:
    """Return the weighted average of predictions of equal shapes, float32."""
    total = np.zeros(np.shape(predictions[0]), dtype=np.float64)
    for weight, one in zip(weights, predictions, strict=True):
        if weight:
            total += weight * np.asarray(one, dtype=np.float64)
    return total.astype(np.float32)


def crossed_blend(
    task: TaskSpec,
    target: Array,
    rows: NDArray[np.int64],
    predictions: Sequence[Array],
    asked: Mapping[str, tuple[NDArray[np.int64], Sequence[Array]]],
    parts: Ints,
) -> tuple[Floats, dict[str, Array]]:
    """Choose weights, and answer for rows with weights that their own labels took no part in.

    Args:
        task: A task that :func:`can_blend`.
        target: Truth of the rows from which weights are chosen, ``[N, ...]``.
        rows: Their row numbers, ``[N]``; a row may come several times (from several trainings).
        predictions: The plans' predictions for them.
        asked: ``{name: (row numbers, the plans' predictions)}`` of what is to be answered; rows that are among ``rows`` are
            answered with weights from the other parts of the rows.
        parts: Part of every row of the suite, from :func:`row_parts`.

    Returns:
        The weights from all rows, and ``{name: average}``.
    """
    whole = greedy_weights(error_gram(task, target, predictions))
    answers = {name: mix(found, whole) for name, (_, found) in asked.items()}
    for number in range(PARTS):
        others = parts[rows] != number
        if not others.any() or others.all():
            continue
        weights = greedy_weights(error_gram(task, target[others], [one[others] for one in predictions]))
        for name, (wanted, found) in asked.items():
            own = (parts[wanted] == number) & np.isin(wanted, rows)
            if own.any():
                answers[name][own] = mix([one[own] for one in found], weights)
    return whole, answers

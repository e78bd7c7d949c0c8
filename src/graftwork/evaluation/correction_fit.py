"""Corrections of probabilities, fitted on rows that were kept back and kept only where they help on other rows than these.

The fit minimises the log loss with a small penalty on everything but "no correction", so that the loss on its own rows is never
higher than before. Whether it helps is seen by cross-fitting: the rows of each part are corrected by what was fitted on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.evaluation.correction import LEAST_PROBABILITY, Correction, log_odds
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import task_kind

__all__ = ["FittedCorrection", "Labels", "fit_correction", "kept_correction", "labels_of", "parts_of_units"]

Units = NDArray[np.int64]

PARTS = 5
LEAST_ROWS = 40
"""Labelled rows (or groups) from which on a correction is tried."""
LEAST_OF_A_CLASS = 25
"""Rows of each class, with and without each label, from which on each is shifted by itself."""
MOST_SHIFTS = 100
CLEAR = 1.0
"""Standard errors by which the log loss must be lower on other rows."""
LEAST_GAIN = 0.5
"""Nats over all rows that a fit must gain on its own rows; what means nothing gains half a nat for each of its numbers."""
PENALTY = 1.0
"""Of squared differences from "no correction", in nats over all rows: some rows outweigh it."""
_MOST_ENTRIES = 500_000
"""Probabilities that are looked at in a fit; of more rows, a part."""
_MOST_SEEN = 4_000_000
"""Probabilities that are looked at in all."""
_LEAST_FITTED = 2_000
_SCALES = (0.05, 4.0)
_MOST_STEPS = 30
_MOST_HALVINGS = 20
_STOP = 1e-6
"""Nats that a further step could win at most, roughly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What happened, in the layout of probabilities ``[N, K]``."""

    exclusive: bool
    """One class of several a row; otherwise every column is a question of its own."""
    truth: Floats
    """``[N, K]``, 0 or 1; rows or entries that are not known are 0."""
    weight: Floats
    """``[N, K]`` or ``[N, 1]``, at least 0: of each entry, or of each row if exclusive; 0 where the label is missing."""

    def losses(self, probabilities: Array) -> Floats:
        """Return the weighted log loss of each row, ``[N]``, summed over columns."""
        found = np.clip(_columns(probabilities), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
        loss = -self.truth * np.log(found)
        if not self.exclusive:
            loss -= (1.0 - self.truth) * np.log1p(-found)
        return np.asarray((loss * self.weight).sum(axis=1))

    def brier(self, probabilities: Array) -> float:
        """Return the weighted mean squared difference, summed over classes if they are exclusive."""
        return float((np.square(_columns(probabilities) - self.truth) * self.weight).sum() / self.total)

    @property
    def total(self) -> float:
        """Weight of all that is known."""
        return max(float(self.weight.sum()), 1e-12)

    def at(self, rows: Any) -> Labels:
        """Return those of some rows."""
        return Labels(exclusive=self.exclusive, truth=self.truth[rows], weight=self.weight[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedCorrection:
    """What came of it, with numbers of rows that took no part in the fit."""

    correction: Correction | None
    """None leaves probabilities as they are."""
    predictions: Array
    """Those of the given rows, each corrected by what was fitted on others; as given without a correction."""
    rows: int
    """Labelled rows (or groups)."""
    log_loss: tuple[float, float]
    """Before and after, in nats."""
    brier: tuple[float, float]
    why_not: str = ""
    """Why there is no correction; empty if there is one."""


def _columns(probabilities: Array) -> Floats:
    found = np.asarray(probabilities, dtype=np.float64)
    return found[:, None] if found.ndim == 1 else found


def labels_of(task: TaskSpec, target: Array, prediction: Array, class_weights: Array | None = None) -> Labels | None:
    """Return what happened beside probabilities of it; None for a task that has none, or one answer for each position.

    Args:
        task: The task.
        target: Truth of ``N`` rows.
        prediction: Answers, as learners lay them out.
        class_weights: Weight of each class, ``[C]``, or of the absence and presence of each label, ``[L, 2]``; None weighs all alike.
    """
    columns = task_kind(task).label_columns(task, np.asarray(target))
    forms = {column.form for column in columns}
    if prediction.ndim > 2 or len(forms) != 1 or forms == {"number"}:
        return None
    width = _columns(prediction).shape[1]
    if forms == {"classes"}:
        (column,) = columns
        values = np.asarray(column.values, dtype=np.int64)
        known = values >= 0
        by_class = 1.0 if class_weights is None else np.asarray(class_weights, dtype=np.float64)[values]
        weight: Floats = np.where(known, by_class, 0.0).astype(np.float64)
        if width == 1:
            return Labels(exclusive=False, truth=(values == 1).astype(np.float64)[:, None], weight=weight[:, None])
        truth = (values[:, None] == np.arange(width)).astype(np.float64)
        return Labels(exclusive=True, truth=truth, weight=weight[:, None])
    found = np.stack([np.asarray(column.values, dtype=np.float64) for column in columns], axis=1)
    if found.shape[1] != width:
        return None
    known, truth = ~np.isnan(found), np.nan_to_num(found)
    chosen = 1.0 if class_weights is None else np.where(truth > 0.5, class_weights[:, 1], class_weights[:, 0])
    entries: Floats = (known * chosen).astype(np.float64)
    return Labels(exclusive=False, truth=truth, weight=entries)


def fit_correction(labels: Labels, prediction: Array, *, shifted: bool) -> Correction:
    """Return the correction with the lowest log loss, hardly more than none where rows are few.

    Args:
        labels: What happened.
        prediction: Probabilities, as learners lay them out.
        shifted: Whether each class or label is shifted by itself.
    """
    logits = _columns(log_odds(prediction, exclusive=labels.exclusive))
    start = np.concatenate([[1.0], np.zeros(logits.shape[1] if shifted else 0)])
    point, value, slope, curve = start, *_objective(labels, logits, start, start)
    for _ in range(_MOST_STEPS):
        step = np.linalg.solve(curve, slope)
        if slope @ step < _STOP:
            break
        # Newton's step, halved until it lowers the loss: the objective is convex.
        for _ in range(_MOST_HALVINGS):
            tried = point - step
            tried[0] = np.clip(tried[0], *_SCALES)
            found = _objective(labels, logits, tried, start)
            if found[0] < value:
                break
            step = 0.5 * step
        else:
            break
        point, (value, slope, curve) = tried, found
    scale, *shifts = (float(f"{one:.6g}") for one in point.tolist())
    return Correction(exclusive=labels.exclusive, scale=scale, shifts=tuple(shifts))


def _objective(labels: Labels, logits: Floats, point: Floats, start: Floats) -> tuple[float, Floats, Floats]:
    """Return the penalised log loss, its gradient and its Hessian at a scale and shifts ``[1 + shifts]``."""
    number, weight = len(point) - 1, labels.weight
    scores = point[0] * logits + (point[1:] if number else 0.0)
    if labels.exclusive:
        highest = scores.max(axis=1, keepdims=True)
        raised = np.exp(scores - highest)
        sums = raised.sum(axis=1, keepdims=True)
        loss = np.log(sums) + highest - (scores * labels.truth).sum(axis=1, keepdims=True)
        share = raised / sums
        spread = weight * share
        # How far each logit is from the mean that the shares give, row by row.
        off_mean = logits - (share * logits).sum(axis=1, keepdims=True)
    else:
        loss = np.logaddexp(0.0, scores) - labels.truth * scores
        share = 1.0 / (1.0 + np.exp(-scores))
        spread, off_mean = weight * share * (1.0 - share), logits
    off, away = (share - labels.truth) * weight, point - start
    value = float((loss * weight).sum() + 0.5 * PENALTY * away @ away)
    slope, curve = PENALTY * away, PENALTY * np.eye(1 + number)
    slope[0] += (off * logits).sum()
    curve[0, 0] += (spread * off_mean * logits).sum()
    if number:
        slope[1:] += off.sum(axis=0)
        curve[0, 1:] += (spread * off_mean).sum(axis=0)
        curve[1:, 0] = curve[0, 1:]
        curve[1:, 1:] += np.diag(spread.sum(axis=0))
        if labels.exclusive:
            curve[1:, 1:] -= share.T @ spread
    return value, slope, curve


def parts_of_units(units: Units) -> NDArray[np.int64]:
    """Return the part of each row, below :data:`PARTS`; rows of one unit are in one part."""
    _, place = np.unique(units, return_inverse=True)
    place = place.reshape(-1)
    return np.asarray(np.random.default_rng(0).permutation(int(place.max(initial=0)) + 1)[place] % PARTS)


def kept_correction(
    task: TaskSpec, target: Array, prediction: Array, units: Units, class_weights: Array | None = None
) -> FittedCorrection | None:
    """Fit a correction and look whether it helps; None if the task has no probabilities or no row has a label.

    Args:
        task: The task.
        target: Truth of ``N`` rows that the model did not learn from.
        prediction: Its answers.
        units: Which rows belong together, ``[N]``: those of one group, or one row that several trainings answered.
        class_weights: As for :func:`labels_of`; losses are weighted by them.
    """
    target, prediction = np.asarray(target), np.asarray(prediction)
    finite = np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1)
    known = np.flatnonzero(labelled_rows(target) & finite)
    # Of very many rows, evenly spread ones; the others take no part in the fit and are corrected by it as new rows are.
    known = known[_some(len(known), prediction, _MOST_SEEN)]
    inside = labels_of(task, target[known], prediction[known], class_weights)
    if inside is None or not len(known):
        return None
    seen, of_row = prediction[known], np.asarray(units)[known]
    number = len(np.unique(of_row))
    raw = inside.losses(seen)
    after, losses, correction, why_not = seen, raw, None, f"{number} labelled rows are too few"
    if number >= LEAST_ROWS:
        rows, fitted = _some(len(seen), seen), raw
        for shifted in (False, True):
            if shifted and not _suffices(inside):
                continue
            made = fit_correction(inside.at(rows), seen[rows], shifted=shifted)
            own = inside.losses(made.apply(seen))
            # What hardly gains on its own rows gains nothing on others, which need not be looked at.
            if float((fitted - own).sum()) < LEAST_GAIN:
                continue
            crossed = _crossed(inside, seen, of_row, shifted=shifted)
            tried = inside.losses(crossed)
            if _is_clear(losses - tried, of_row):
                after, losses, fitted, correction = crossed, tried, own, made
        why_not = "" if correction else "no correction was clearly better on other rows"
    answers = prediction
    if correction is not None:
        answers = correction.apply(prediction)
        answers[known] = after
    total = inside.total
    return FittedCorrection(
        correction=correction,
        predictions=answers,
        rows=number,
        log_loss=(float(raw.sum()) / total, float(losses.sum()) / total),
        brier=(inside.brier(seen), inside.brier(after)),
        why_not=why_not,
    )


def _suffices(labels: Labels) -> bool:
    """Return whether each class can be shifted by itself."""
    known = labels.weight > 0
    with_it = (labels.truth * known).sum(axis=0)
    least = with_it if labels.exclusive else np.minimum(with_it, ((1.0 - labels.truth) * known).sum(axis=0))
    return len(least) <= MOST_SHIFTS and float(least.min()) >= LEAST_OF_A_CLASS


def _some(number: int, prediction: Array, entries: int = _MOST_ENTRIES) -> slice:
    """Return evenly spread rows, so many that a fit stays quick."""
    most = max(_LEAST_FITTED, entries // max(1, _columns(prediction[:1]).shape[1]))
    return slice(0, number, max(1, -(-number // most)))


def _crossed(labels: Labels, prediction: Array, units: Units, *, shifted: bool) -> Array:
    """Return the probabilities of each part, corrected by what was fitted on the others."""
    found = prediction.copy()
    for others, own in _divisions(units):
        rows = others[_some(len(others), prediction)]
        found[own] = fit_correction(labels.at(rows), prediction[rows], shifted=shifted).apply(prediction[own])
    return found


def _divisions(units: Units) -> Iterator[tuple[Units, Units]]:
    part = parts_of_units(units)
    for number in range(PARTS):
        own = part == number
        if own.any() and not own.all():
            yield np.flatnonzero(~own), np.flatnonzero(own)


def _is_clear(gains: Floats, units: Units) -> bool:
    """Return whether gains, summed over each unit, are clearly above 0."""
    _, place = np.unique(units, return_inverse=True)
    summed = np.bincount(place.reshape(-1), weights=gains)
    return float(summed.sum()) > CLEAR * float(summed.std(ddof=1)) * float(np.sqrt(len(summed)))

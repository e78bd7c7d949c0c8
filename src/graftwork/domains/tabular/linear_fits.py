"""Ridge regression for all penalties at once, and logistic regression over a path of penalties."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["INVERSE_PENALTIES", "RIDGE_PENALTIES", "RidgePath", "choose_ridge", "fit_logistic", "logistic_losses"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pairs = Sequence[tuple[Ints, Ints]]
RIDGE_PENALTIES: Floats = 10.0 ** np.arange(-6.0, 2.5, 0.5)
"""Penalties on squared weights for each row, so that they mean the same for any number of rows."""
INVERSE_PENALTIES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Logistic regression minimises the sum of its losses plus squared weights over twice this."""
_STOP = 1.05
"""Weaker penalties are not tried once the held-out loss is so many times the best one."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgePath:
    """The eigenvectors of the features: weights for any penalty are then a product."""

    mean: Floats
    vectors: Floats
    """``[D, r]``"""
    values: Floats
    """Their eigenvalues ``[r]``: sums of squares."""
    num_rows: int

    @classmethod
    def of(cls, x: Floats) -> Self:
        """Decompose features ``[n, D]``."""
        mean = x.mean(axis=0)
        centred = x - mean
        if len(x) < x.shape[1]:
            _, singular, transposed = np.linalg.svd(centred, full_matrices=False)
            return cls(mean, transposed.T, np.square(singular), len(x))
        values, vectors = np.linalg.eigh(centred.T @ centred)
        return cls(mean, vectors, np.maximum(values, 0.0), len(x))

    def coefficients(self, x: Floats, y: Floats) -> Floats:
        """Return the products of eigenvectors with the features' sums over centred targets, ``[r, T]``."""
        return np.asarray(self.vectors.T @ ((x - self.mean).T @ (y - y.mean(axis=0))))

    def shrunk(self, coefficients: Floats, penalty: float | Floats) -> Floats:
        """Return coefficients of a solution, ``[r, T]``, for a penalty a row, one for all targets or one each."""
        return coefficients / (self.values[:, None] + np.asarray(penalty) * self.num_rows)

    def weights(self, x: Floats, y: Floats, penalty: float | Floats) -> tuple[Floats, Floats]:
        """Return weights ``[D, T]`` and intercepts ``[T]``."""
        found = self.vectors @ self.shrunk(self.coefficients(x, y), penalty)
        return found, y.mean(axis=0) - self.mean @ found


def choose_ridge(x: Floats, y: Floats, folds: Pairs) -> tuple[Floats, Floats]:
    """Return the penalties that predict held-out rows best and their mean squared errors, both ``[T]``.

    Args:
        x: Features, ``[n, D]``.
        y: Targets, ``[n, T]``.
        folds: Rows to fit on and rows held out; without any, a middle penalty and errors of 0.
    """
    errors, count = np.zeros((len(RIDGE_PENALTIES), y.shape[1])), 0
    for fit, held in folds:
        path = RidgePath.of(x[fit])
        coefficients = path.coefficients(x[fit], y[fit])
        seen = (x[held] - path.mean) @ path.vectors
        for place, penalty in enumerate(RIDGE_PENALTIES):
            found = seen @ path.shrunk(coefficients, penalty) + y[fit].mean(axis=0)
            errors[place] += np.square(found - y[held]).sum(axis=0)
        count += len(held)
    if not count:
        return np.full(y.shape[1], 0.1), errors[0]
    best = errors.argmin(axis=0)
    return RIDGE_PENALTIES[best], errors[best, np.arange(y.shape[1])] / count


def _path(x: Floats, y: Ints, inverses: Iterable[float], *, most_steps: int) -> Iterator[tuple[Floats, Floats, Ints]]:
    """Yield weights ``[D, K]``, intercepts ``[K]`` and the classes they are for (K = 1 for two), for each penalty in turn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(max_iter=most_steps, warm_start=True, tol=1e-4)
    for inverse in inverses:
        model.set_params(C=inverse)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a stopped fit is a fit with a little more penalty
            model.fit(x, y)
        yield np.array(model.coef_.T), np.array(model.intercept_), np.asarray(model.classes_, dtype=np.int64)


def _spread_out(weights: Floats, intercepts: Floats, classes: Ints, num_classes: int) -> tuple[Floats, Floats]:
    """Return weights and intercepts for all classes; those that were not there are ``exp(-10)`` times as likely as the rarest."""
    width = num_classes if num_classes > 2 else 1
    if len(classes) == num_classes:
        return weights, intercepts
    if weights.shape[1] == 1:  # two of several classes
        weights, intercepts = np.concatenate([-weights, weights], axis=1) / 2, np.concatenate([-intercepts, intercepts]) / 2
    every, level = np.zeros((len(weights), width)), np.full(width, intercepts.min() - 10.0)
    every[:, classes], level[classes] = weights, intercepts
    return every, level


def _constant(width: int, label: int, num_rows: int, num_classes: int) -> tuple[Floats, Floats]:
    """Return a model for one class only: the others together weigh as much as one row."""
    if num_classes <= 2:
        return np.zeros((width, 1)), np.array([np.log(num_rows + 1.0) * (1 if label else -1)])
    level = np.zeros(num_classes)
    level[label] = np.log((num_rows + 1.0) * (num_classes - 1))
    return np.zeros((width, num_classes)), level


def fit_logistic(x: Floats, y: Ints, num_classes: int, inverse: float, *, most_steps: int = 300) -> tuple[Floats, Floats]:
    """Return weights ``[D, K]`` and intercepts ``[K]``; two classes have one column, ``K = 1``, more have one each.

    Args:
        x: Features, ``[n, D]``.
        y: Classes, ``[n]``, any of them may be absent.
        num_classes: Number of classes.
        inverse: Inverse penalty, above 0.
        most_steps: Most steps of L-BFGS.
    """
    if len(np.unique(y)) == 1:
        return _constant(x.shape[1], int(y[0]), len(y), num_classes)
    return _spread_out(*next(_path(x, y, [inverse], most_steps=most_steps)), num_classes)


def log_losses(x: Floats, y: Ints, weights: Floats, intercepts: Floats) -> Floats:
    """Return the log loss of each row."""
    scores = x @ weights + intercepts
    if scores.shape[1] == 1:
        return np.logaddexp(0.0, np.where(y > 0, -scores[:, 0], scores[:, 0]))
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y])


def logistic_losses(x: Floats, y: Ints, num_classes: int, folds: Pairs, *, most_steps: int = 100) -> Floats:
    """Return the mean held-out log loss for each of :data:`INVERSE_PENALTIES`, infinite where it was not looked at.

    Args:
        x: Features, ``[n, D]``.
        y: Classes, ``[n]``.
        num_classes: Number of classes.
        folds: Rows to fit on and rows held out.
        most_steps: Most steps of L-BFGS.
    """
    losses, count = np.zeros(len(INVERSE_PENALTIES)), 0
    for fit, held in folds:
        if len(np.unique(y[fit])) == 1:
            continue
        best, count = np.inf, count + len(held)
        for place, found in enumerate(_path(x[fit], y[fit], INVERSE_PENALTIES, most_steps=most_steps)):
            loss = float(log_losses(x[held], y[held], *_spread_out(*found, num_classes)).sum())
            losses[place] += loss
            best = min(best, loss)
            if loss > _STOP * best or not np.isfinite(losses[place]):
                losses[place + 1 :] = np.inf
                break
    return losses / count if count else losses

"""Partial pooling of linear models: coefficients of each unit are shared ones plus a part of its own, shrunk by a covariance that all
units have in common.

For unit ``u`` with features ``X`` (the first column is 1) and targets ``z``: ``z = X (m + v) + e`` with ``v ~ N(0, spread)``,
``m ~ N(0, prior)`` and ``e ~ N(0, noise)``. That is the mixed model with random intercepts and slopes (Laird and Ware, "Random-effects
models for longitudinal data", 1982): given the variances, the shared and the own parts are known in closed form; the variances are
those of the largest marginal likelihood, found by expectation maximisation over ``m`` and ``v``. Sums over rows are all that it reads.
Classes come in through working responses (penalised quasi-likelihood): their rows are weighed anew in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRUCTURES", "Labels", "Moments", "Pooled", "Structure", "fit_classes", "fit_numbers", "probabilities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Structure = Literal["intercepts", "slopes", "covariance"]
STRUCTURES: tuple[Structure, ...] = ("intercepts", "slopes", "covariance")
"""What a unit has of its own: an intercept; slopes of one variance as well; slopes and intercept with a covariance that is learned."""
FLAT = 100.0
"""Prior variance of the shared intercept: nothing is known of it."""
_PSEUDO_ROWS = 10.0
"""Rows for which the mean noise of all units counts in the noise of each."""
_LEAST_CURVATURE = 0.02
_CLOSE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Targets of the units of one task: one of a number or of two classes, otherwise one for each class."""

    places: Ints
    """Rows of the features, ``[n]``."""
    values: Floats
    """``[n, width]``: standardised numbers, or 0 and 1."""

    def at(self, mask: NDArray[np.bool_]) -> Self:
        """Return those of some rows of the features, for a mask over them."""
        kept = mask[self.places]
        return replace(self, places=self.places[kept], values=self.values[kept])


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over the rows of each of ``U`` units."""

    squares: Floats
    """``X' X``, ``[U, P, P]``."""
    products: Floats
    """``X' z``, ``[U, P]``."""
    power: Floats
    """``z' z``, ``[U]``."""
    rows: Floats
    """Number of rows, ``[U]``."""

    @classmethod
    def of(cls, x: Floats, labels: Sequence[Labels]) -> Self:
        """Return the sums of numbers; those of features are made once for tasks with labels on the same rows."""
        known: dict[bytes, Floats] = {}
        squares, products, power, rows = [], [], [], []
        for one in labels:
            part, key = x[one.places], one.places.tobytes()
            if key not in known:
                known[key] = part.T @ part
            squares.append(known[key])
            products.append(part.T @ one.values[:, 0])
            power.append(np.square(one.values[:, 0]).sum())
            rows.append(len(one.places))
        return cls(np.stack(squares), np.stack(products), np.array(power), np.array(rows, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """The coefficients of all units, and the variances that shrink them."""

    shared: Floats
    """``[F, P]``: the shared coefficients of each family of units."""
    own: Floats
    """``[U, P]``: what each unit adds."""
    spread: Floats
    """Covariance of what units add, ``[P, P]``."""
    prior: float
    """Variance of shared slopes."""
    noise: Floats
    """Variance of the noise of each unit, ``[U]``; 1 for classes, whose rows are weighed."""

    @classmethod
    def start(cls, num_units: int, num_families: int, width: int, structure: Structure, noise: float) -> Self:
        """Return the state before the first step: no coefficients, wide variances."""
        spread = np.diag([1.0, *[0.0 if structure == "intercepts" else 0.3] * (width - 1)])
        return cls(np.zeros((num_families, width)), np.zeros((num_units, width)), spread, 1.0, np.full(num_units, noise))

    def coefficients(self, families: Ints) -> Floats:
        """Return ``[U, P]``: shared and own parts together."""
        return self.shared[families] + self.own

    def solved(self, moments: Moments, families: Ints) -> tuple[Pooled, Floats, Floats]:
        """Return the coefficients under these variances; and ``W`` of each unit ``[U, P, P]`` (the inverse of ``spread`` plus its
        error) and the covariances of shared coefficients ``[F, P, P]``, from which variances are made."""
        width = self.own.shape[1]
        scaled = moments.squares / self.noise[:, None, None]
        both = np.concatenate([scaled, (moments.products / self.noise[:, None])[..., None]], axis=2)
        # (1 + G spread)^-1 of G and of the pull of the targets: variances may be 0.
        both = np.linalg.solve(np.eye(width) + scaled @ self.spread, both)
        weights, pulled = both[..., :-1], both[..., -1]
        weights = 0.5 * (weights + weights.transpose(0, 2, 1))
        precision = np.tile(np.diag([1.0 / FLAT, *[1.0 / self.prior] * (width - 1)]), (len(self.shared), 1, 1))
        sums = np.zeros_like(self.shared)
        for family in range(len(sums)):
            members = slice(None) if len(sums) == 1 else families == family
            precision[family] += weights[members].sum(axis=0)
            sums[family] = pulled[members].sum(axis=0)
        covariance = np.linalg.inv(precision)
        shared = np.einsum("fpq,fq->fp", covariance, sums)
        own = (pulled - np.einsum("upq,uq->up", weights, shared[families])) @ self.spread
        return replace(self, shared=shared, own=own), weights, covariance

    def step(
        self, moments: Moments, families: Ints, structure: Structure, *, noise: Literal["unit", "common", "known"]
    ) -> Pooled:
        """Return coefficients under these variances, with the variances that are most likely given them: one step of expectation
        maximisation.

        Args:
            moments: Sums over the rows.
            families: Family of each unit, ``[U]``.
            structure: What units have of their own.
            noise: Whether the noise is that of each unit, one for all, or known.
        """
        found, weights, covariance = self.solved(moments, families)
        count, width = self.own.shape
        spread = self.spread
        if len(covariance) == 1:
            held = weights.reshape(-1, width) @ covariance[0]
        else:
            held = (weights @ covariance[families]).reshape(-1, width)
        held = held.reshape(weights.shape)
        # Own parts are uncertain by spread - spread W spread, and by what the shared part is uncertain.
        inner = np.tensordot(held, weights, axes=([0, 2], [0, 1])) - weights.sum(axis=0)
        mean = (found.own.T @ found.own + spread @ inner @ spread) / count + spread
        alike = np.diag([mean[0, 0], *[max(float(np.trace(mean[1:, 1:])) / max(width - 1, 1), 1e-12)] * (width - 1)])
        if structure == "intercepts":
            after = np.diag([mean[0, 0], *[0.0] * (width - 1)])
        elif structure == "slopes":
            after = alike
        else:  # an own covariance of many slopes takes many units: it is drawn towards the simpler one
            after = (count * mean + (width + 1) * alike) / (count + width + 1)
        prior = self.prior
        if width > 1:
            slopes = np.square(found.shared[:, 1:]).sum() + np.einsum("fpp->", covariance[:, 1:, 1:])
            prior = max(float(slopes) / found.shared[:, 1:].size, 1e-12)
        level = self.noise
        if noise != "known":
            whole = found.coefficients(families)
            gap = moments.power - 2 * (moments.products * whole).sum(axis=1)
            gap += np.einsum("up,up->u", whole, np.einsum("upq,uq->up", moments.squares, whole))
            # The uncertainty of own and shared parts together, seen through the features: G times it is all made of W.
            through = np.einsum("upq,qp->u", weights, spread) + np.einsum("upp->u", held)
            through -= np.einsum("upq,uqp->u", held, weights @ spread)
            gap = np.maximum(gap, 0.0) + self.noise * through
            common = float(gap.sum() / max(moments.rows.sum(), 1.0))
            level = (gap + _PSEUDO_ROWS * common) / (moments.rows + _PSEUDO_ROWS) if noise == "unit" else np.full(count, common)
            level = np.maximum(level, 1e-6)
        return replace(found, spread=0.5 * (after + after.T), prior=prior, noise=level)


def fit_numbers(
    moments: Moments, families: Ints, structure: Structure, *, steps: int, noise: Literal["unit", "common"] = "unit"
) -> Pooled:
    """Return the models of numbers.

    Args:
        moments: Sums over the rows.
        families: Family of each unit, ``[U]``: units of one family have shared coefficients.
        structure: What units have of their own.
        steps: Most steps of expectation maximisation.
        noise: Whether each unit has noise of its own, or all have the same.
    """
    found = Pooled.start(len(families), int(families.max()) + 1, moments.squares.shape[1], structure, 0.5)
    for _ in range(steps):
        before, found = found, found.step(moments, families, structure, noise=noise)
        if _are_close(before, found, families):
            break
    return found.solved(moments, families)[0]


def fit_classes(x: Floats, labels: Sequence[Labels], families: Ints, structure: Structure, *, steps: int) -> Pooled:
    """Return the models of classes, as :func:`fit_numbers` does.

    Args:
        x: Features, ``[n, P]``, the first column 1.
        labels: Targets of each task, 0 and 1; several columns are classes of which each row has one.
        families: Family of each unit, the units of a task behind each other.
        structure: What units have of their own.
        steps: Most steps.
    """
    found = Pooled.start(len(families), int(families.max()) + 1, x.shape[1], structure, 1.0)
    for _ in range(steps):
        before = found
        moments = _working(x, labels, found.coefficients(families))
        found = found.step(moments, families, structure, noise="known")
        if _are_close(before, found, families):
            break
    return found


def probabilities(scores: Floats) -> Floats:
    """Return probabilities for scores ``[n, width]``: of the second class, or of each class."""
    if scores.shape[1] == 1:
        return 0.5 * (1.0 + np.tanh(0.5 * scores))
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _are_close(before: Pooled, after: Pooled, families: Ints) -> bool:
    old, new = before.coefficients(families), after.coefficients(families)
    return bool(np.abs(new - old).max() <= _CLOSE * max(float(np.abs(new).max()), 1e-6))


def _working(x: Floats, labels: Sequence[Labels], coefficients: Floats) -> Moments:
    """Return the sums of weighed rows and of their working responses at these coefficients."""
    width = x.shape[1]
    squares, products = np.empty((len(coefficients), width, width)), np.empty((len(coefficients), width))
    start = 0
    for one in labels:
        units = slice(start, start + one.values.shape[1])
        start = units.stop
        part = x[one.places]
        shares = probabilities(part @ coefficients[units].T)
        # Classes of one row are not independent: with twice the curvature, what is left out never makes a step too long.
        curvature = np.maximum(shares * (1.0 - shares), _LEAST_CURVATURE) * (1.0 if shares.shape[1] == 1 else 2.0)
        squares[units] = np.einsum("np,nk,nq->kpq", part, curvature, part, optimize=True)
        products[units] = np.einsum("kpq,kq->kp", squares[units], coefficients[units]) + (one.values - shares).T @ part
    rows = np.array([len(one.places) for one in labels for _ in range(one.values.shape[1])], dtype=np.float64)
    return Moments(squares, products, np.zeros(len(coefficients)), rows)

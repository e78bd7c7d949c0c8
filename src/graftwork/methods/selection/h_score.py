"""H-score: how much of the features' variance lies between classes, measured in units of their whole covariance.

Paper: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019,
https://arxiv.org/abs/2212.10082: ``tr(cov(f)^-1 cov(E[f | y]))``. Shrunken: Ibrahim, Ponomareva and Mazumder, "Newer is not always
better", ECML 2022, https://arxiv.org/abs/2110.06893: the covariance is moved towards a multiple of the identity by the amount of
Ledoit and Wolf, and the covariance of the class means is scaled down by the same amount.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from graftwork.math.feature_moments import ClassSums, FeatureMoments
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["HScore"]

Floats = NDArray[np.float64]


class HScore(CheckedScorer):
    """Reads class indices. Plain scores are at most the number of classes less one, and reach it without meaning where there are
    fewer rows than features; the shrunken form is made for that case.

    Args:
        shrink: Whether the covariance is shrunken.
    """

    bounds = (0.0, float("inf"))

    def __init__(self, *, shrink: bool = False) -> None:
        self.shrink = shrink
        self._moments = FeatureMoments(fourth=shrink)
        self._classes = ClassSums()

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        self._moments.update(rows)
        self._classes.update(rows, np.asarray(target, dtype=np.int64))

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        self._moments.merge(other._moments)
        self._classes.merge(other._classes)

    def finish(self) -> float:
        """Return the score, at least 0.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._classes.counts)
        shares = self._classes.counts[self._classes.present] / self._moments.count
        between = (self._classes.means() - self._moments.mean) * np.sqrt(shares)[:, None]
        covariance = self._moments.covariance()
        amount = self.shrinkage() if self.shrink else 0.0
        if amount:
            level = float(np.trace(covariance)) / len(covariance)
            covariance = (1.0 - amount) * covariance
            covariance[np.diag_indices_from(covariance)] += amount * level
        return (1.0 - amount) * _energy(covariance, between, self._moments.noise())

    def shrinkage(self) -> float:
        """Return the amount of Ledoit and Wolf, in [0, 1]: 1 leaves nothing but the mean variance."""
        covariance, width = self._moments.covariance(), self._width
        level = float(np.trace(covariance)) / width
        if level <= self._moments.noise():
            return 0.0
        square = float((covariance**2).sum())
        away = (square - width * level**2) / width
        wrong = (self._moments.fourth_moment() / self._moments.count - square) / (width * self._moments.count)
        return 0.0 if wrong <= 0 else 1.0 if away <= wrong else wrong / away


def _energy(covariance: Floats, rows: Floats, noise: float) -> float:
    """Return the sum over rows ``x`` of ``x^T covariance^+ x``; directions with no more variance than ``noise`` do not count."""
    from scipy.linalg import LinAlgError, cholesky, solve_triangular

    try:
        # Ten times as fast as an eigendecomposition, and as exact wherever no pivot comes near the noise.
        lower = cholesky(covariance, lower=True, check_finite=False)
        if (np.diag(lower) ** 2).min() > max(noise, 1e-10 * np.diag(covariance).max()):
            return float((solve_triangular(lower, rows.T, lower=True, check_finite=False) ** 2).sum())
    except LinAlgError:
        pass
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(noise, 1e-10 * float(values.max(initial=0.0)))
    return float((((rows @ vectors[:, kept]) ** 2) / values[kept]).sum())

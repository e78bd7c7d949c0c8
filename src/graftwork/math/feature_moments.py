"""Sums over rows of features and targets, block by block, in float64: all that linear scores need of a data set of any size."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassSums", "FeatureMoments", "ValueSums"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


class FeatureMoments:
    """Count, sum and Gram matrix of rows.

    Args:
        fourth: Whether to keep what :meth:`fourth_moment` needs as well.
    """

    def __init__(self, *, fourth: bool = False) -> None:
        self.count = 0
        self.fourth = fourth
        self.total: Floats = np.zeros(0)
        """Sum of the rows, ``[D]``."""
        # Column by column in memory, as BLAS adds to it in place; what is below the diagonal stays 0.
        self._upper: Floats = np.zeros((0, 0), order="F")
        self._norm = 0.0
        self._norm_squares = 0.0
        self._norm_rows: Floats = np.zeros(0)

    def update(self, rows: Floats) -> None:
        """Add rows ``[n, D]``."""
        from scipy.linalg.blas import dsyrk

        self._fit(rows.shape[1])
        self.count += len(rows)
        self.total += rows.sum(axis=0)
        # Half of the product, added in place.
        self._upper = dsyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=1)
        if self.fourth:
            self._add_norms(rows)

    def _add_norms(self, rows: Floats) -> None:
        norms = np.einsum("nd,nd->n", rows, rows)
        self._norm += float(norms.sum())
        self._norm_squares += float(norms @ norms)
        self._norm_rows += norms @ rows

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        if other.count:
            self._fit(len(other.total))
            self.count += other.count
            self.total += other.total
            self._upper += other._upper
            self._norm += other._norm
            self._norm_squares += other._norm_squares
            self._norm_rows += other._norm_rows

    def _fit(self, width: int) -> None:
        if not self.count and len(self.total) != width:
            self.total, self._norm_rows, self._upper = np.zeros(width), np.zeros(width), np.zeros((width, width), order="F")

    @property
    def gram(self) -> Floats:
        """Sum of the outer products of the rows, ``[D, D]``."""
        return self._upper + np.triu(self._upper, 1).T

    @property
    def mean(self) -> Floats:
        """Mean of the rows, ``[D]``."""
        return self.total / self.count

    def covariance(self) -> Floats:
        """Return the covariance, divided by the number of rows, ``[D, D]``."""
        return self.gram / self.count - np.outer(self.mean, self.mean)

    def noise(self) -> float:
        """Return the largest variance that rounding alone may leave where there is none."""
        largest = float(np.diag(self._upper).max(initial=0.0)) / max(self.count, 1)
        return largest * float(np.finfo(np.float64).eps) * max(len(self.total), self.count)

    def fourth_moment(self) -> float:
        """Return the sum over rows of the fourth power of their distance from the mean.

        Raises:
            ValueError: If ``fourth`` was not asked for.
        """
        if not self.fourth:
            raise ValueError("The fourth moment is kept only with `fourth=True`.")
        mean = self.mean
        square = float(mean @ mean)
        # (a - 2 b + c)^2 with a = |x|^2, b = x.mean, c = |mean|^2, summed over the rows.
        crossed = float(self._norm_rows @ mean)
        along = float(mean @ self.gram @ mean)
        return max(
            0.0,
            self._norm_squares
            + 4.0 * along
            + self.count * square**2
            - 4.0 * crossed
            + 2.0 * square * self._norm
            - 4.0 * square * float(self.total @ mean),
        )


class ClassSums:
    """Rows a class, and their sums; squares too where they are asked for. Classes are numbered from 0 and may come at any time."""

    def __init__(self, *, squares: bool = False) -> None:
        self.counts: Floats = np.zeros(0)
        """Rows of each class, ``[C]``."""
        self.sums: Floats = np.zeros((0, 0))
        """Sum of the rows of each class, ``[C, D]``."""
        self.squares: Floats | None = np.zeros((0, 0)) if squares else None
        """Sum of their squares, ``[C, D]``; None if they are not kept."""

    def update(self, rows: Floats, labels: NDArray[np.int64]) -> None:
        """Add rows ``[n, D]`` of classes ``[n]``, all at least 0."""
        from scipy.sparse import csr_array

        if not len(rows):
            return
        classes = int(labels.max()) + 1
        self._fit(classes, rows.shape[1])
        # [classes, n] with a one for each row: a product with it sums rows by class.
        members = csr_array((np.ones(len(rows)), (labels, np.arange(len(rows)))), shape=(classes, len(rows)))
        self.counts[:classes] += np.bincount(labels, minlength=classes)
        self.sums[:classes] += members @ rows
        if self.squares is not None:
            self.squares[:classes] += members @ rows**2

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        classes = len(other.counts)
        if classes:
            self._fit(classes, other.sums.shape[1])
            self.counts[:classes] += other.counts
            self.sums[:classes] += other.sums
            if self.squares is not None and other.squares is not None:
                self.squares[:classes] += other.squares

    def _fit(self, classes: int, width: int) -> None:
        grown = classes - len(self.counts)
        if grown > 0:
            self.counts = np.concatenate([self.counts, np.zeros(grown)])
            old = self.sums if len(self.sums) else np.zeros((0, width))
            self.sums = np.concatenate([old, np.zeros((grown, width))])
            if self.squares is not None:
                old = self.squares if len(self.squares) else np.zeros((0, width))
                self.squares = np.concatenate([old, np.zeros((grown, width))])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes have rows, ``[C]``."""
        return self.counts > 0

    def means(self) -> Floats:
        """Return the means of the classes that have rows, ``[present, D]``."""
        return self.sums[self.present] / self.counts[self.present, None]


class ValueSums:
    """What a linear fit needs of targets ``[n, K]`` beside the features' moments."""

    def __init__(self) -> None:
        self.cross: Floats = np.zeros((0, 0))
        """Sum of target times row, ``[K, D]``."""
        self.total: Floats = np.zeros(0)
        """Sum of the targets, ``[K]``."""
        self.squares: Floats = np.zeros(0)
        """Sum of their squares, ``[K]``."""

    def update(self, rows: Floats, targets: Floats) -> None:
        """Add rows ``[n, D]`` and their targets ``[n, K]``."""
        cross, total, squares = targets.T @ rows, targets.sum(axis=0), (targets**2).sum(axis=0)
        if not len(self.total):
            self.cross, self.total, self.squares = cross, total, squares
        else:
            self.cross, self.total, self.squares = self.cross + cross, self.total + total, self.squares + squares

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        if len(other.total):
            if not len(self.total):
                self.cross, self.total, self.squares = other.cross.copy(), other.total.copy(), other.squares.copy()
            else:
                self.cross, self.total, self.squares = (
                    self.cross + other.cross, self.total + other.total, self.squares + other.squares,
                )  # fmt: skip

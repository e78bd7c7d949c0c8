"""TransRate: how many more bits it takes to code all features together than class by class.

Paper: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, https://arxiv.org/abs/2106.09362. Symbols: ``Z``
features with their mean taken off, ``eps`` distortion, coding rate ``R(Z) = 1/2 log det(I + Z^T Z / (n eps))``. The score is
``R(Z)`` less the mean of the rates of the classes; the paper weighs classes by their rows, its released code weighs all alike.

Every class needs a scatter matrix of its own, or its rows where it has fewer rows than features. Those of all classes need not fit
into memory: the first pass counts, each later one takes as many classes as fit.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.math.feature_moments import ClassSums
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["TransRate", "coding_rate"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class TransRate(CheckedScorer):
    """Reads class indices. The score depends on the scale of the features. Two passes, more where classes are many and features wide.

    Args:
        weighting: How classes weigh: ``"size"`` by their rows, ``"equal"`` all alike.
        distortion: ``eps``, above 0.
        memory: Bytes that the classes of one pass may take together, above 0; one class is always taken.

    Raises:
        ConfigError: If an argument is out of range.
    """

    passes = 2

    def __init__(self, *, weighting: Literal["size", "equal"] = "size", distortion: float = 1e-4, memory: float = 64e6) -> None:
        if weighting not in ("size", "equal") or not distortion > 0 or not memory > 0:
            raise ConfigError(
                "TransRate: weighting is 'size' or 'equal', distortion and memory above 0; got "
                f"{weighting!r}, {distortion!r} and {memory!r}."
            )
        self.weighting, self.distortion, self.memory = weighting, distortion, memory
        self._classes = ClassSums()
        self._mean: Floats | None = None
        self._left: list[Labels] = []
        self._group: dict[int, _ClassScatter] = {}
        self._whole: Floats = np.zeros((0, 0))
        self._rates: dict[int, float] = {}

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        labels = np.asarray(target, dtype=np.int64)
        if self._mean is None:
            self._classes.update(rows, labels)
            return
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        for label, part in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            if label in self._group:
                self._group[label].add(rows[part] - self._mean)

    def finish_pass(self) -> None:
        """Plan which classes each pass takes; later, turn the scatters of a pass into rates."""
        if self._mean is None:
            self._plan()
        else:
            self._take_rates()
        if self._left:
            counts = self._classes.counts
            self._group = {int(label): _ClassScatter(int(counts[label]), self._width) for label in self._left.pop(0)}

    def _plan(self) -> None:
        counts = self._classes.counts
        present = np.flatnonzero(counts)
        if not len(present):
            return
        self._mean = self._classes.sums.sum(axis=0) / counts.sum()
        self._whole = np.zeros((self._width, self._width))
        costs = 8.0 * self._width * np.minimum(counts[present], self._width)
        groups, spent = [[int(present[0])]], float(costs[0])
        for label, cost in zip(present[1:].tolist(), costs[1:].tolist(), strict=True):
            if spent + cost > self.memory:
                groups.append([])
                spent = 0.0
            groups[-1].append(label)
            spent += cost
        self._left = [np.array(group) for group in groups]
        self.passes = 1 + len(groups)

    def _take_rates(self) -> None:
        for label, scatter in self._group.items():
            self._rates[label] = scatter.rate(self.distortion)
            scatter.add_to(self._whole)
        self._group = {}

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._classes.counts)
        self._take_rates()
        counts = self._classes.counts[self._classes.present]
        rates = [self._rates[label] for label in np.flatnonzero(self._classes.present).tolist()]
        inner = np.average(rates, weights=counts if self.weighting == "size" else None)
        return _rate_of(self._whole, float(counts.sum()), self.distortion) - float(inner)


class _ClassScatter:
    """Sum of the outer products of a class's rows, or the rows themselves where these are fewer than features."""

    def __init__(self, count: int, width: int) -> None:
        self.count, self._seen = count, 0
        self._kept: Floats | None = np.empty((count, width)) if count < width else None
        self._scatter: Floats = np.zeros((0, 0)) if count < width else np.zeros((width, width))

    def add(self, rows: Floats) -> None:
        if self._kept is None:
            self._scatter += rows.T @ rows
        else:
            self._kept[self._seen : self._seen + len(rows)] = rows
        self._seen += len(rows)

    def rate(self, distortion: float) -> float:
        # Both products have the same eigenvalues but for zeros: the smaller one is taken.
        return _rate_of(self._scatter if self._kept is None else self._kept @ self._kept.T, self.count, distortion)

    def add_to(self, whole: Floats) -> None:
        whole += self._scatter if self._kept is None else self._kept.T @ self._kept


def coding_rate(rows: Floats, distortion: float) -> float:
    """Return ``1/2 log det(I + Z^T Z / (n eps))`` of rows ``[n, D]``."""
    return _rate_of(rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T, len(rows), distortion)


def _rate_of(scatter: Floats, count: float, distortion: float) -> float:
    scaled = scatter / (count * distortion)
    scaled[np.diag_indices_from(scaled)] += 1.0
    return float(0.5 * np.linalg.slogdet(scaled)[1])

"""TransRate: how many more bits it takes to code all features together than class by class.

Paper: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, https://arxiv.org/abs/2106.09362. Symbols: ``Z``
features with their mean taken off, ``eps`` distortion, coding rate ``R(Z) = 1/2 log det(I + Z^T Z / (n eps))``. The score is
``R(Z)`` less the mean of the rates of the classes; the paper weighs classes by their rows, its released code weighs all alike.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.math.row_sample import RowSample
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["TransRate", "coding_rate"]

Floats = NDArray[np.float64]


class TransRate(CheckedScorer):
    """Reads class indices. The score depends on the scale of the features.

    Args:
        weighting: How classes weigh: ``"size"`` by their rows, ``"equal"`` all alike.
        distortion: ``eps``, above 0.
        max_rows: Rows that are kept, drawn from all: a covariance for each class of a large data set does not fit into memory.
        seed: Draws them.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        weighting: Literal["size", "equal"] = "size",
        distortion: float = 1e-4,
        max_rows: int = 20_000,
        seed: int = 0,
    ) -> None:
        if weighting not in ("size", "equal") or not distortion > 0 or max_rows < 2:
            raise ConfigError(
                "TransRate: weighting is 'size' or 'equal', distortion above 0, max_rows at least 2; got "
                f"{weighting!r}, {distortion!r} and {max_rows!r}."
            )
        self.weighting, self.distortion = weighting, distortion
        self._sample = RowSample(max_rows, seed=seed)

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        self._sample.update(rows.astype(np.float32), target, numbers)

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        self._sample.merge(other._sample)

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        labels = self._sample.targets.astype(np.int64)
        counts = np.bincount(labels) if len(labels) else np.zeros(0)
        class_count(self, counts)
        rows = self._sample.rows.astype(np.float64)
        rows -= rows.mean(axis=0)
        order = np.argsort(labels, kind="stable")
        parts = np.split(rows[order], np.cumsum(counts[counts > 0])[:-1])
        rates = np.array([coding_rate(part, self.distortion) for part in parts])
        inner = np.average(rates, weights=counts[counts > 0] if self.weighting == "size" else None)
        return coding_rate(rows, self.distortion) - float(inner)


def coding_rate(rows: Floats, distortion: float) -> float:
    """Return ``1/2 log det(I + Z^T Z / (n eps))`` of rows ``[n, D]``."""
    # Both products have the same eigenvalues but for zeros: the smaller one is taken.
    gram = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    gram /= len(rows) * distortion
    gram[np.diag_indices_from(gram)] += 1.0
    return float(0.5 * np.linalg.slogdet(gram)[1])

"""LEEP: log-likelihood of the target's labels under the source's own classifier and the co-occurrence of both label sets.

Paper: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020,
https://arxiv.org/abs/2002.12462. Symbols: ``theta(x)_z`` probability that the source gives to its class ``z``; ``P(y, z)`` mean of
``theta(x)_z`` over the rows of class ``y``; the score is the mean of ``log sum_z P(y | z) theta(x)_z``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.interfaces.scorer import ScoredRows
from graftwork.math.feature_moments import ClassSums
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["Leep", "check_probabilities"]

Floats = NDArray[np.float64]


class Leep(CheckedScorer):
    """Reads class probabilities of the source and class indices; at most 0. Two passes: joint distribution, then likelihood."""

    reads = "probabilities"
    passes = 2
    bounds = (float("-inf"), 0.0)

    def __init__(self) -> None:
        self._joint = ClassSums()
        self._given: Floats | None = None
        self._total, self._count = 0.0, 0

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        labels = np.asarray(target, dtype=np.int64)
        check_probabilities(rows)
        if self._given is None:
            self._joint.update(rows, labels)
            return
        # A row counted in the first pass gave its own class a share, so this is above 0.
        self._total += float(np.log(np.einsum("nz,nz->n", self._given[labels], rows)).sum())
        self._count += len(rows)

    def likelihoods(self, rows: ScoredRows) -> Floats:
        """Return what the source says of the label of each labelled row, after the first pass: ``[n]``, above 0.

        Raises:
            DataError: If the first pass is not finished, or the block gives no probabilities.
        """
        if self._given is None or rows.probabilities is None:
            raise DataError("Likelihoods need probabilities, and a finished first pass over all rows.")
        labels = np.asarray(rows.target, dtype=np.int64)
        known = labels >= 0
        seen = np.asarray(rows.probabilities[known], dtype=np.float64)
        return np.asarray(np.einsum("nz,nz->n", self._given[labels[known]], seen))

    def finish_pass(self) -> None:
        """Turn the joint distribution into that of target classes given source classes."""
        source = self._joint.sums.sum(axis=0)
        # Source classes that never get a share take no part.
        self._given = np.divide(self._joint.sums, source, out=np.zeros_like(self._joint.sums), where=source > 0)

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._joint.counts)
        return self._total / self._count


def check_probabilities(rows: Floats) -> None:
    """Check that rows are class probabilities; sums may be off by what half precision rounds away.

    Raises:
        DataError: If they are not.
    """
    if (rows < 0).any() or np.abs(rows.sum(axis=1) - 1.0).max(initial=0.0) > 0.02:
        raise DataError(
            "Class probabilities of a source must be at least 0 and sum to 1 in every row; apply a softmax to logits."
        )

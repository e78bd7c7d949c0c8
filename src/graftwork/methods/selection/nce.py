"""NCE: negative conditional entropy of the target's labels, given the classes that the source's classifier answers.

Paper: Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019,
https://arxiv.org/abs/1908.08142.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from graftwork.methods.selection.base import CheckedScorer, class_count
from graftwork.methods.selection.leep import check_probabilities

__all__ = ["NegativeConditionalEntropy"]

Floats = NDArray[np.float64]


class NegativeConditionalEntropy(CheckedScorer):
    """Reads class probabilities of the source, of which only the most probable class counts, and class indices; at most 0."""

    reads = "probabilities"
    bounds = (float("-inf"), 0.0)

    def __init__(self) -> None:
        self._joint: Floats = np.zeros((0, 0))

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        check_probabilities(rows)
        labels, width = np.asarray(target, dtype=np.int64), rows.shape[1]
        classes = max(int(labels.max()) + 1, len(self._joint))
        cells = np.bincount(labels * width + rows.argmax(axis=1), minlength=classes * width)
        self._grow(classes, width)
        self._joint += cells.reshape(classes, width)

    def _grow(self, classes: int, width: int) -> None:
        grown = np.zeros((max(classes, len(self._joint)), width))
        grown[: len(self._joint)] = self._joint if len(self._joint) else 0.0
        self._joint = grown

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        if len(other._joint):
            self._grow(len(other._joint), other._joint.shape[1])
            self._joint[: len(other._joint)] += other._joint

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._joint.sum(axis=1))
        source = self._joint.sum(axis=0)
        filled = self._joint > 0
        # Only filled cells: a source class that is never answered says nothing, and 0 log 0 is 0.
        given = np.divide(self._joint, source, out=np.ones_like(self._joint), where=filled)
        return float((self._joint[filled] * np.log(given[filled])).sum() / source.sum())

"""How alike two descriptions of the same rows are: features and labels (PARC), features and features (linear CKA).

- PARC: Bolya et al., "Scalable Diverse Model Selection for Accessible Transfer Learning", NeurIPS 2021,
  https://arxiv.org/abs/2111.06977.
- CKA: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, https://arxiv.org/abs/1905.00414.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["linear_cka", "parc", "similarity_weights"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


def parc(features: Array, labels: Array) -> float:
    """Return the rank correlation between distances of features and distances of labels over all pairs of rows, in [-1, 1].

    Distances of features, and of labels in several columns, are one minus Pearson's correlation; those of labels in one column
    are absolute differences. 0 if one side does not vary.

    Args:
        features: ``[n, D]``, ``n`` at least 3; memory grows with the square of ``n``, so a few hundred rows are asked.
        labels: ``[n]`` int64, classes; or ``[n, K]`` numbers.

    Example:
        >>> parc(np.array([[0.0, 1], [0, 2], [5, 1], [9, 1]]), np.array([0, 0, 1, 1]))
        1.0
    """
    if labels.ndim == 1:
        labels = np.eye(int(labels.max(initial=0)) + 1)[labels]
    upper = np.triu_indices(len(features), k=1)
    own = labels.astype(np.float64)
    apart = np.abs(own - own.T) if own.shape[1] == 1 else _correlation_distances(own)
    return _correlation(_ranks(_correlation_distances(features.astype(np.float64))[upper]), _ranks(apart[upper]))


def similarity_weights(similarities: Array, power: float) -> Floats:
    """Return weights with the sum 1 from similarities ``[S]``: their powers, nothing for those below 0; alike if none is above 0.

    Args:
        similarities: One a source; NaN counts as 0.
        power: At least 0; 0 weighs all sources above 0 alike, a large one takes the most similar alone.

    Example:
        >>> similarity_weights(np.array([0.4, 0.2, -0.3]), 2.0).tolist()
        [0.8, 0.2, 0.0]
    """
    kept = np.clip(np.nan_to_num(np.asarray(similarities, dtype=np.float64)), 0.0, None)
    largest = float(kept.max(initial=0.0))
    if not largest > 0:
        return np.full(len(kept), 1.0 / max(len(kept), 1))
    # Over the largest one first: powers of small similarities would come to nothing.
    found = np.where(kept > 0, (kept / largest) ** power, 0.0)
    return np.asarray(found / found.sum())


def linear_cka(first: Array, second: Array) -> float:
    """Return the linear centred kernel alignment of two sets of features, in [0, 1]; 0 if one does not vary.

    It does not see turns and sizes, and the widths may differ.

    Args:
        first: ``[n, D]``.
        second: ``[n, d]``.
    """
    one, two = (part.astype(np.float64) - part.astype(np.float64).mean(axis=0) for part in (first, second))
    cross, own, other = (float(np.linalg.norm(left.T @ right)) for left, right in ((one, two), (one, one), (two, two)))
    return cross**2 / (own * other) if own > 1e-12 and other > 1e-12 else 0.0


def _correlation_distances(rows: Floats) -> Floats:
    """Return one minus Pearson's correlation of each pair of rows, ``[n, n]``; rows that do not vary are at distance 1 of all."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-12)
    # Rounded: equal distances must be ties, and products of equal rows differ in their last bits.
    return np.asarray(np.round(1.0 - unit @ unit.T, 12))


def _ranks(values: Floats) -> Floats:
    """Return ranks, ties at their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[places])


def _correlation(one: Floats, two: Floats) -> float:
    one, two = one - one.mean(), two - two.mean()
    size = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(np.clip(one @ two / size, -1.0, 1.0)) if size > 1e-12 else 0.0

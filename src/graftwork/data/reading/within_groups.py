"""How much alike the rows of a group are: shares of variance between groups, corrected for chance. Pure NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_share", "mean_ranks", "neighbour_share", "number_share", "some_groups"]

Array = NDArray[Any]
Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


def mean_ranks(values: Floats) -> Floats:
    """Return ranks from 1, equal values sharing their mean rank; NaN stays NaN.

    Example:
        >>> mean_ranks(np.array([5.0, 1.0, 5.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    ranks = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    _, inverse, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks[known] = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return ranks


def number_share(groups: Codes, values: Floats) -> float:
    """Return the share of variance that lies between groups: 1 if the rows of a group are equal, about 0 if groups say nothing.

    Args:
        groups: Group of each row, int64 ``[N]``, -1 for none.
        values: Numbers ``[N]``, NaN where missing.
    """
    known = (groups >= 0) & ~np.isnan(values)
    _, codes = np.unique(groups[known], return_inverse=True)
    column = values[known]
    if not len(column):
        return 0.0
    column = column - column.mean()
    sizes = np.bincount(codes)
    sums = np.bincount(codes, weights=column)
    total = float((column**2).sum())
    return _share(total - float((sums**2 / sizes).sum()), total, len(column), len(sizes))


def class_share(groups: Codes, classes: Codes) -> float:
    """Return :func:`number_share` of classes: the share of their Gini impurity between groups.

    Args:
        groups: Group of each row, int64 ``[N]``, -1 for none.
        classes: Class of each row, int64 ``[N]``, -1 where missing.
    """
    known = (groups >= 0) & (classes >= 0)
    _, codes = np.unique(groups[known], return_inverse=True)
    labels = classes[known]
    if not len(labels):
        return 0.0
    sizes = np.bincount(codes)
    width = int(labels.max()) + 1
    # One entry for each pair that occurs; the full table could be huge.
    pairs, counts = np.unique(codes * width + labels, return_counts=True)
    within = len(labels) - float((counts.astype(np.float64) ** 2 / sizes[pairs // width]).sum())
    total = len(labels) - float((np.bincount(labels).astype(np.float64) ** 2).sum()) / len(labels)
    return _share(within, total, len(labels), len(sizes))


def _share(within: float, total: float, rows: int, groups: int) -> float:
    # Rows less groups as degrees of freedom, so that many small groups do not look alike by chance.
    if total <= 0 or rows <= groups:
        return 0.0
    return 1.0 - (max(within, 0.0) / (rows - groups)) / (total / (rows - 1))


def neighbour_share(groups: Codes, positions: Floats, values: Floats) -> float:
    """Return how well the mean of a group follows from the two groups beside it, an R2: near 1 for a quantity, near 0 or below
    for arbitrary numbers such as ids.

    Args:
        groups: Group of each row, int64 ``[N]``, -1 for none.
        positions: Where each group lies, ``[G]``.
        values: Numbers ``[N]``, NaN where missing.
    """
    known = (groups >= 0) & ~np.isnan(values)
    sizes = np.bincount(groups[known], minlength=len(positions))
    means = np.bincount(groups[known], weights=values[known], minlength=len(positions)) / np.maximum(sizes, 1)
    order = np.argsort(positions, kind="stable")
    order = order[sizes[order] > 0]
    means, sizes = means[order], sizes[order]
    if len(means) < 3:
        return 0.0
    beside = (means[:-2] + means[2:]) / 2.0
    middle, weights = means[1:-1], sizes[1:-1].astype(np.float64)
    spread = float((weights * (middle - np.average(middle, weights=weights)) ** 2).sum())
    return 1.0 - float((weights * (middle - beside) ** 2).sum()) / spread if spread > 0 else 0.0


def some_groups(groups: Codes, most: int, seed: int = 0) -> Codes:
    """Return rows of whole groups, about ``most`` of them, sorted; all rows with a group if there are no more."""
    rows = np.flatnonzero(groups >= 0)
    if len(rows) <= most:
        return rows
    sizes = np.bincount(groups[rows])
    order = np.random.default_rng(seed).permutation(len(sizes))
    chosen = np.zeros(len(sizes), dtype=bool)
    # At least two, so that something can differ between them.
    chosen[order[: max(2, int(np.searchsorted(np.cumsum(sizes[order]), most)))]] = True
    return rows[chosen[groups[rows]]]

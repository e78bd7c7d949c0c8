"""Folds within the training rows, on which learners that are fitted in one go choose their settings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite

__all__ = ["inner_folds"]

Rows = NDArray[np.int64]
SEVERAL = 2000
"""With more rows than this one fold of a fifth says enough."""


def inner_folds(
    suite: Suite, rows: Rows, generator: np.random.Generator, *, folds: int = 5, every: bool = False
) -> Iterator[tuple[Rows, Rows]]:
    """Yield places in ``rows`` to fit on, and places held out: of more than 2,000 rows only the first fold, if not all are wanted.

    Args:
        suite: Groups of its rows are in one fold each.
        rows: Rows of the suite; of fewer than two (or of one group) there are no folds.
        generator: Deals the rows out.
        folds: Number of folds, at least 2.
        every: Whether all folds are wanted, whatever the number of rows.
    """
    names = rows if suite.groups is None else suite.groups[rows]
    values, place = np.unique(names, return_inverse=True)
    number = min(folds, len(values))
    if number < 2:
        return
    dealt = np.empty(len(values), dtype=np.int64)
    dealt[generator.permutation(len(values))] = np.arange(len(values)) % number
    fold = dealt[place.reshape(-1)]
    for index in range(number if every or len(rows) <= SEVERAL else 1):
        yield np.flatnonzero(fold != index), np.flatnonzero(fold == index)

"""Pareto front: what no other point beats in every respect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["pareto_front"]


def pareto_front(points: ArrayLike, *, maximize: Sequence[bool] | bool = False) -> NDArray[np.bool_]:
    """Return which points no other point dominates (at least as good in every column, better in one).

    Args:
        points: Finite or infinite numbers ``[N, D]``; a row with NaN is never on the front and dominates nothing.
        maximize: For each column, or for all: True where larger is better.

    Returns:
        bool ``[N]``; of equal points all or none are on the front.

    Raises:
        ValueError: If ``points`` is not two-dimensional, or ``maximize`` has another length than the columns.

    Example:
        >>> pareto_front([[1, 3], [2, 2], [3, 3]]).tolist()
        [True, True, False]
    """
    table: NDArray[Any] = np.asarray(points, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"`points` must have shape [N, D]; got {list(table.shape)}.")
    flips = np.full(table.shape[1], maximize) if isinstance(maximize, bool) else np.asarray(maximize, dtype=bool)
    if flips.shape != (table.shape[1],):
        raise ValueError(f"`maximize` must have one entry a column ({table.shape[1]}); got {len(flips)}.")
    costs = np.where(flips, -table, table)
    front = np.zeros(len(costs), dtype=bool)
    valid = np.flatnonzero(~np.isnan(costs).any(axis=1))
    # Best first: a point can only be dominated by one that comes before it, and by a member of the front if by any.
    # lexsort takes its last key first, so the columns are turned round.
    order = valid[np.lexsort(costs[valid].T[::-1])]
    members = np.empty((len(order), costs.shape[1]))
    count = 0
    for index in order:
        point = costs[index]
        ahead = members[:count]
        # At least as good everywhere and better somewhere; an equal point dominates nothing, so all equals stay.
        if not ((ahead <= point).all(axis=1) & (ahead < point).any(axis=1)).any():
            members[count] = point
            front[index] = True
            count += 1
    return front

"""Hypervolume: how much of the space of scores a set of points dominates; one number for a whole set of trade-offs.

Zitzler and Thiele, "Multiobjective Evolutionary Algorithms: A Comparative Case Study and the Strength Pareto Approach", IEEE TEC
1999. Two sets compare only with one reference point for both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graftwork.evaluation.pareto import pareto_front

__all__ = ["hypervolume"]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume of what lies between the reference and at least one point; larger scores are better.

    Exact, by slicing along the last score: fine for some hundred points of a few scores.

    Args:
        points: Scores ``[N, D]``; points that are not above the reference in every score add nothing.
        reference: The worst scores that count, ``[D]``.

    Raises:
        ValueError: If the shapes do not fit or a number is NaN or infinite.

    Example:
        >>> hypervolume([[2.0, 1.0], [1.0, 3.0]], [0.0, 0.0])
        4.0
    """
    table, worst = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if table.ndim != 2 or worst.shape != (table.shape[1],) or not table.shape[1]:
        raise ValueError(f"`points` is [N, D] and `reference` [D]; got {list(table.shape)} and {list(worst.shape)}.")
    if not (np.isfinite(table).all() and np.isfinite(worst).all()):
        raise ValueError("`points` and `reference` must be finite numbers.")
    above = table - worst
    return _volume(above[(above > 0).all(axis=1)])


def _volume(points: NDArray[np.float64]) -> float:
    """Return the volume dominated by positive points ``[N, D]`` above the origin."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    # Dominated and repeated points add nothing, and each costs a recursion.
    points = np.unique(points[pareto_front(points, maximize=True)], axis=0)
    points = points[np.argsort(-points[:, -1], kind="stable")]
    levels = np.append(points[:, -1], 0.0)
    total = 0.0
    # Between two levels of the last score, exactly the points above the upper one dominate.
    for index in range(len(points)):
        thickness = levels[index] - levels[index + 1]
        if thickness > 0:
            total += thickness * _volume(points[: index + 1, :-1])
    return float(total)

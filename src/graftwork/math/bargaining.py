"""The Nash bargaining solution among gradients, by Newton's method.

Navon et al., "Multi-Task Learning as a Bargaining Game", https://arxiv.org/abs/2202.01017 (claim 3.1): the agreed direction is
``a @ J`` with ``G a = 1 / a`` elementwise, ``a > 0`` and ``G = J J^T``. These are the stationary points of ``a G a / 2 - sum(log
a)``, which is strictly convex and self-concordant: the damped Newton method (Boyd and Vandenberghe, "Convex Optimization",
section 9.6.4) reaches its only minimum from any start without a line search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bargaining_weights"]


def bargaining_weights(
    gramian: NDArray[np.float64], *, ridge: float = 1e-9, tolerance: float = 1e-10, max_steps: int = 500
) -> NDArray[np.float64]:
    """Return the weights of the Nash bargaining solution.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``, finite and positive semi-definite. Rows of any size: they are brought to length 1
            first, which the solution follows exactly.
        ridge: Added to the squared lengths of 1. Opposite gradients have no solution (their weights grow without end); with it
            they get one whose direction is almost zero.
        tolerance: The Newton decrement at which to stop.
        max_steps: The most Newton steps.

    Returns:
        ``[T]``, positive; 0 for rows that are zero, which gain nothing from any direction.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> bargaining_weights(np.array([[4.0, 0.0], [0.0, 0.25]])).round(6).tolist()
        [0.5, 2.0]
    """
    gramian = np.asarray(gramian, dtype=np.float64)
    if not np.isfinite(gramian).all():
        raise ValueError("the inner products of the gradients hold a number that is not finite")
    # The solution scales with the rows: weights of unit rows, divided by the lengths. So all work is on cosines.
    lengths = np.sqrt(np.clip(np.diagonal(gramian), 0.0, None))
    weights = np.zeros(len(gramian))
    kept = lengths > 0
    if not kept.any():
        return weights
    cosines = gramian[np.ix_(kept, kept)] / np.outer(lengths[kept], lengths[kept])
    cosines[np.diag_indices_from(cosines)] = 1.0 + ridge
    # The solution of rows that all point the same way; any positive start would converge.
    found = np.full(int(kept.sum()), 1.0 / np.sqrt(kept.sum()))
    for _ in range(max_steps):
        # In units of the present weights the Hessian is I + W C W: well conditioned however far apart the weights are.
        scaled = cosines * np.outer(found, found)
        slope = scaled.sum(axis=1) - 1.0
        step = -np.linalg.solve(scaled + np.eye(len(found)), slope)
        # Rounding can make this product slightly negative close to the solution.
        decrement = float(np.sqrt(max(0.0, -(slope @ step))))
        # Damped by 1 / (1 + decrement), a relative step is above -1, so weights stay positive without a check.
        found = found * (1.0 + step / (1.0 + decrement))
        if decrement < tolerance:
            break
    weights[kept] = found / lengths[kept]
    return weights

"""Optimal transport between two sets of equal total mass, each point of a set with an equal share: soft (Sinkhorn) and exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["exact_transport", "sinkhorn_transport"]

Array = NDArray[Any]


def sinkhorn_transport(cost: Array, regularization: float, *, iterations: int = 1000, tolerance: float = 1e-9) -> Array:
    """Return the plan that minimises ``<cost, plan> - regularization * entropy(plan)``, by alternating projections of logarithms.

    Paper: Cuturi, "Sinkhorn Distances", NeurIPS 2013, https://arxiv.org/abs/1306.0895

    Args:
        cost: ``[n, m]``.
        regularization: Above 0, in the units of the cost; near 0 the plan is nearly exact and takes long.
        iterations: Most of them.
        tolerance: Largest difference of a row's mass from ``1 / n``, as a share of it, at which it stops.

    Returns:
        ``[n, m]``, rows sum to ``1 / n`` (nearly), columns to ``1 / m``.

    Raises:
        ConfigError: If the regularization is not above 0.

    Example:
        >>> sinkhorn_transport(np.array([[0.0, 1.0], [1.0, 0.0]]), 0.01).round(3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    if not 0.0 < regularization < float("inf"):
        raise ConfigError(f"`regularization` must be above 0; got {regularization!r}.")
    kernel = -np.asarray(cost, np.float64) / regularization
    rows, columns = -np.log(kernel.shape[0]), -np.log(kernel.shape[1])
    left, right = np.zeros(kernel.shape[0]), np.zeros(kernel.shape[1])
    for _ in range(iterations):
        left = rows - _log_sum(kernel + right, axis=1)
        right = columns - _log_sum(kernel + left[:, None], axis=0)
        plan = np.exp(kernel + left[:, None] + right)
        if np.abs(plan.sum(axis=1) * kernel.shape[0] - 1.0).max() < tolerance:
            break
    return np.asarray(plan)


def exact_transport(cost: Array) -> Array:
    """Return a plan of least cost, ``[n, m]``: a permutation over ``n`` for equal numbers of points, otherwise a linear program.

    Args:
        cost: ``[n, m]``.
    """
    from scipy.optimize import linear_sum_assignment, linprog
    from scipy.sparse import eye_array, kron

    num_rows, num_columns = cost.shape
    plan = np.zeros(cost.shape)
    if num_rows == num_columns:
        plan[linear_sum_assignment(cost)] = 1.0 / num_rows
        return plan
    sums = [kron(eye_array(num_rows), np.ones((1, num_columns))), kron(np.ones((1, num_rows)), eye_array(num_columns))]
    shares = [np.full(num_rows, 1.0 / num_rows), np.full(num_columns, 1.0 / num_columns)]
    from scipy.sparse import vstack

    found = linprog(np.asarray(cost, np.float64).reshape(-1), A_eq=vstack(sums), b_eq=np.concatenate(shares), method="highs")
    return np.asarray(found.x).reshape(cost.shape)


def _log_sum(values: Array, *, axis: int) -> Array:
    largest = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - largest).sum(axis=axis)) + largest.squeeze(axis))

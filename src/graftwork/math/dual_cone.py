"""Projection onto the dual cone of some gradients, by non-negative least squares.

The dual cone of rows ``J`` holds the directions that lower no loss's progress: ``J d >= 0``. Quinton and Rey, "Jacobian Descent
for Multi-Objective Optimization", https://arxiv.org/abs/2406.16232 (proposition 1) show that the projection of ``J^T u`` is
``J^T w`` where ``w`` minimises ``w^T G w`` over ``w >= u`` with ``G = J J^T``. With ``w = u + z`` and ``G = R^T R`` this reads:
minimise ``|R z + R u|`` over ``z >= 0``, which SciPy solves exactly in finitely many steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dual_cone_weights"]


def dual_cone_weights(gramian: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of the projection of ``start @ J`` onto the dual cone of the rows of ``J``.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``, positive semi-definite (singular is fine).
        start: Weights ``[T]`` of the vector that is projected, or several of them ``[M, T]``.

    Returns:
        Weights in the shape of ``start``, never below ``start``.

    Example:
        >>> weights = dual_cone_weights(np.array([[1.0, -0.5], [-0.5, 1.0]]), np.array([1.0, 0.0]))
        >>> weights.round(6).tolist()
        [1.0, 0.5]
    """
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh(np.asarray(gramian, dtype=np.float64))
    # R with R^T R = G. Rounding makes zero eigenvalues of a singular G slightly negative.
    root = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    starts = np.atleast_2d(start)
    added = np.stack([nnls(root, -(root @ row))[0] for row in starts])
    return np.asarray((starts + added).reshape(np.shape(start)), dtype=np.float64)

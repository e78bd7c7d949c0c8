r"""Linear regressions that share a basis: :math:`y_t \approx X_t B w_t`, ``B`` of few columns for all tasks. NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_shared_basis", "ridge_head"]

Floats = NDArray[np.float64]


def ridge_head(features: Floats, values: Floats, ridge: float) -> Floats:
    """Return the weights ``[k]`` that minimise the mean squared error plus ``ridge`` times the squared weights.

    Args:
        features: ``[n, k]``.
        values: ``[n]``.
        ridge: Above 0.
    """
    gram = features.T @ features / len(features)
    gram[np.diag_indices_from(gram)] += ridge
    return np.asarray(np.linalg.solve(gram, features.T @ values / len(features)))


def fit_shared_basis(
    inputs: Sequence[Floats], values: Sequence[Floats], rank: int, *, ridge: float = 1e-3, steps: int = 20
) -> tuple[Floats, Floats]:
    """Return an orthonormal basis ``[d, rank]`` and heads ``[rank, tasks]``, by alternating least squares over all rows of all tasks.

    It begins with the main directions of ridge regressions of the single tasks, each weighted by the root of its rows.

    Args:
        inputs: ``[n_t, d]`` for each task.
        values: ``[n_t]`` for each task.
        rank: Columns of the basis, from 1 to ``d``.
        ridge: Of the heads, and of the basis in its own step; above 0.
        steps: Rounds of the alternation.
    """
    width = inputs[0].shape[1]
    grams = [rows.T @ rows for rows in inputs]
    crosses = [rows.T @ value for rows, value in zip(inputs, values, strict=True)]
    sizes = [len(rows) for rows in inputs]
    alone = np.stack(
        [
            np.linalg.solve(gram + 0.1 * size * np.eye(width), cross) * np.sqrt(size)
            for gram, cross, size in zip(grams, crosses, sizes, strict=True)
        ],
        axis=1,
    )
    basis = np.linalg.svd(alone, full_matrices=False)[0][:, :rank]
    heads = _heads(basis, grams, crosses, sizes, ridge)
    for _ in range(steps):
        # vec(B) solves sum_t (w_t w_t^T kron X_t^T X_t) vec(B) = sum_t vec(X_t^T y_t w_t^T), vec column by column.
        rank_now = basis.shape[1]
        system = np.einsum("tij,kt,lt->kilj", np.stack(grams), heads, heads).reshape(rank_now * width, rank_now * width)
        right = np.einsum("ti,kt->ki", np.stack(crosses), heads).reshape(-1)
        system[np.diag_indices_from(system)] += ridge * sum(sizes) / len(sizes)
        found = np.linalg.solve(system, right).reshape(rank_now, width).T
        basis = np.linalg.qr(found)[0]
        heads = _heads(basis, grams, crosses, sizes, ridge)
    return basis, heads


def _heads(basis: Floats, grams: Sequence[Floats], crosses: Sequence[Floats], sizes: Sequence[int], ridge: float) -> Floats:
    eye = np.eye(basis.shape[1])
    return np.stack(
        [
            np.linalg.solve(basis.T @ gram @ basis / size + ridge * eye, basis.T @ cross / size)
            for gram, cross, size in zip(grams, crosses, sizes, strict=True)
        ],
        axis=1,
    )

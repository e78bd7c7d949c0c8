"""Inner products of the rows of a short, very wide matrix, and their weighted sum, without a second copy of the matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["combine_rows_", "gramian", "square_root"]

CHUNK = 8192
"""Columns per partial product: some rows of a chunk, in float64, stay in the second-level cache, and OpenBLAS starts threads for
inner products in float64 from 10,000 numbers on, which costs more than it gives beside other work."""

FEW = 4
"""Up to so many rows one inner product after another is faster than a matrix product, which is built for more."""


def gramian(matrix: Tensor) -> Tensor:
    """Return ``matrix @ matrix.T`` in float64, computed in float64.

    Inner products of a small row and a large one decide what many methods do with the small row; in float32 the rounding errors
    of the large row hide it. General matrix products do twice the work of a symmetric one; NumPy's product of a matrix with its
    own transpose is the symmetric kind, so it is used on the CPU, chunk by chunk, so that no second copy of the matrix is needed.

    Args:
        matrix: ``[T, P]``, of any floating dtype, detached from any graph.

    Returns:
        ``[T, T]``, float64, symmetric, on the device of ``matrix``.

    Example:
        >>> gramian(torch.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist()
        [[25.0, 3.0], [3.0, 1.0]]
    """
    num_rows, width = matrix.shape
    total = torch.zeros(num_rows, num_rows, dtype=torch.float64, device=matrix.device)
    if matrix.device.type != "cpu":
        for part in matrix.detach().split(CHUNK, dim=1):
            wide = part.double()
            total += wide @ wide.T
        return total
    # Shares memory with `total`.
    summed = total.numpy()
    buffer = torch.empty(num_rows, min(CHUNK, width), dtype=torch.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite are for the caller to notice
        for start in range(0, width, CHUNK):
            part = matrix.detach()[:, start : start + CHUNK]
            chunk = buffer[:, : part.shape[1]].copy_(part).numpy()
            if num_rows <= FEW:
                for row in range(num_rows):
                    for column in range(row + 1):
                        summed[row, column] += chunk[row] @ chunk[column]
            else:
                summed += chunk @ chunk.T
    if num_rows <= FEW:
        # Only the lower triangle was filled above.
        summed += np.tril(summed, -1).T
    return total


def combine_rows_(matrix: Tensor, weights: Tensor) -> Tensor:
    """Overwrite the first row with ``weights @ matrix`` and return that row, a view.

    Args:
        matrix: ``[T, P]``, contiguous; its first row is lost.
        weights: ``[T]``.

    Returns:
        ``[P]``, sharing memory with ``matrix``.
    """
    first = matrix[0]
    # In place and in this order: the first row is read here for the last time.
    first.mul_(weights[0])
    if len(matrix) > 1:
        first.addmv_(matrix[1:].T, weights[1:])
    return first


def square_root(symmetric: Tensor) -> Tensor:
    """Return ``R`` with ``R @ R.T == symmetric`` for a positive semi-definite matrix ``[T, T]``; tiny negative eigenvalues count
    as 0."""
    values, vectors = torch.linalg.eigh(symmetric.double())
    return (vectors * values.clamp(min=0.0).sqrt()).to(symmetric.dtype)

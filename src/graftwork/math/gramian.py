"""Inner products of the rows of a short, very wide matrix, and their weighted sum, without a second copy of the matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["combine_rows_", "gramian", "square_root"]

CHUNK = 65536
"""Columns per partial product: rows of a chunk stay in the second-level cache, and rounding errors do not pile up over millions of columns."""

FEW = 4
"""Up to so many rows one inner product after another is faster than a matrix product, which is built for more."""


def gramian(matrix: Tensor) -> Tensor:
    """Return ``matrix @ matrix.T``, summed over chunks of columns in float64.

    A plain product of two rows with millions of entries loses four digits in float32, and general matrix products do twice the work
    of a symmetric one; NumPy's product of a matrix with its own transpose is the symmetric kind, so it is used on the CPU.

    Args:
        matrix: ``[T, P]``, float32 or float64, detached from any graph.

    Returns:
        ``[T, T]``, symmetric, in the dtype and on the device of ``matrix``.

    Example:
        >>> gramian(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        tensor([[25.,  3.],
                [ 3.,  1.]])
    """
    total = torch.zeros(len(matrix), len(matrix), dtype=torch.float64, device=matrix.device)
    if matrix.device.type == "cpu" and matrix.dtype in (torch.float32, torch.float64):
        values, partial = matrix.detach().numpy(), total.numpy()
        for start in range(0, values.shape[1], CHUNK):
            chunk = values[:, start : start + CHUNK]
            if len(chunk) <= FEW:
                for row in range(len(chunk)):
                    for column in range(row + 1):
                        partial[row, column] += chunk[row] @ chunk[column]
            else:
                partial += chunk @ chunk.T
        if len(matrix) <= FEW:
            partial += np.tril(partial, -1).T
    else:
        for chunk in matrix.detach().split(CHUNK, dim=1):
            total += chunk @ chunk.T
    return total.to(matrix.dtype)


def combine_rows_(matrix: Tensor, weights: Tensor) -> Tensor:
    """Overwrite the first row with ``weights @ matrix`` and return that row, a view.

    Args:
        matrix: ``[T, P]``, contiguous; its first row is lost.
        weights: ``[T]``.

    Returns:
        ``[P]``, sharing memory with ``matrix``.
    """
    first = matrix[0]
    first.mul_(weights[0])
    if len(matrix) > 1:
        first.addmv_(matrix[1:].T, weights[1:])
    return first


def square_root(symmetric: Tensor) -> Tensor:
    """Return ``R`` with ``R @ R.T == symmetric`` for a positive semi-definite matrix ``[T, T]``; tiny negative eigenvalues count as 0."""
    values, vectors = torch.linalg.eigh(symmetric.double())
    return (vectors * values.clamp(min=0.0).sqrt()).to(symmetric.dtype)

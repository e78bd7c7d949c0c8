"""Some rows of an array, picked only where they are read: rows of pictures that are mapped from a file stay there."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["COPIED", "RowView", "picked_rows"]

Array = NDArray[Any]
COPIED = 64e6
"""Bytes up to which picked rows are copied at once."""


class RowView:
    """Behaves as ``array[rows]`` does where rows are read, without a copy of all of them.

    Args:
        array: ``[N, ...]``.
        rows: Numbers of the rows, ``[n]``.
    """

    def __init__(self, array: Array, rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.dtype = array.dtype
        self.shape = (len(rows), *array.shape[1:])
        self.ndim = array.ndim
        self.nbytes = math.prod(self.shape) * array.dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Array:
        """Return the rows of an index, a slice or an array of numbers, as a copy."""
        return np.asarray(self._array[self._rows[index]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype=dtype)


def picked_rows(array: Array, rows: NDArray[np.int64]) -> Array:
    """Return ``array[rows]``: a copy if it is small, else a :class:`RowView`.

    Args:
        array: ``[N, ...]``, may be mapped from a file.
        rows: Numbers of the rows.
    """
    size = len(rows) * math.prod(array.shape[1:]) * array.dtype.itemsize
    return np.asarray(array[rows]) if size <= COPIED else cast(Array, RowView(array, rows))

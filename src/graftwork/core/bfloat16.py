"""bfloat16 in NumPy, which has no such type: conversion of bits, and tensors that are widened slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["BLOCK", "WidenedTensor", "narrow_to_bfloat16", "widen_bfloat16"]

BLOCK = 1 << 18
"""Entries that are converted at once where a whole tensor passes through."""


def widen_bfloat16(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Turn bfloat16 bits (uint16) into float32 values."""
    # bfloat16 is the upper half of float32, so a shift is exact; `out` spares a second array of the same size.
    wide = bits.astype(np.uint32)
    return np.left_shift(wide, np.uint32(16), out=wide).view(np.float32)


def narrow_to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round float32 values to bfloat16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # 0x7FFF is just below half of the last kept bit; adding that bit itself sends ties to the even neighbour.
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    # The addition above can carry a NaN into infinity or into -0.
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


class WidenedTensor(np.lib.mixins.NDArrayOperatorsMixin):
    """Stored bfloat16 that looks like a read-only float32 array; only the slices that are asked for are widened.

    ``reshape`` gives another such view, indexing gives a real array. Operators, NumPy's functions and ``np.asarray`` work too,
    and widen
    everything: code that walks over slices of ``reshape(-1)`` stays small, other code stays right.

    Args:
        bits: The stored bits, uint16, in the tensor's shape.

    Example:
        >>> tensor = WidenedTensor(narrow_to_bfloat16(np.array([[1.0, 2.0], [3.0, 4.0]])))
        >>> tensor.shape, tensor.dtype, tensor.reshape(-1)[1:3].tolist()
        ((2, 2), dtype('float32'), [2.0, 3.0])
    """

    dtype = np.dtype(np.float32)

    def __init__(self, bits: NDArray[Any]) -> None:
        self.bits = bits
        self.shape: tuple[int, ...] = bits.shape
        self.size = int(bits.size)
        self.ndim = bits.ndim

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, index: Any) -> Any:
        bits = self.bits[index]
        # A full index gives a scalar, which cannot be the `out` of the shift.
        return widen_bfloat16(bits) if isinstance(bits, np.ndarray) else widen_bfloat16(np.array([bits]))[0]

    def reshape(self, *shape: Any) -> WidenedTensor:
        """Return a view of another shape."""
        return WidenedTensor(self.bits.reshape(*shape))

    def astype(self, dtype: DTypeLike) -> NDArray[Any]:
        """Return all values in another type."""
        return self.__array__().astype(dtype, copy=False)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("bfloat16 values cannot be widened without a copy")
        values = widen_bfloat16(self.bits)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        plain = [np.asarray(value) if isinstance(value, WidenedTensor) else value for value in inputs]
        return getattr(ufunc, method)(*plain, **settings)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_plain(args), **{key: _plain(value) for key, value in kwargs.items()})


def _plain(value: Any) -> Any:
    """Widen what stands in nested lists and tuples too, as in ``np.stack([a, b])``."""
    if isinstance(value, WidenedTensor):
        return np.asarray(value)
    return type(value)(_plain(item) for item in value) if isinstance(value, list | tuple) else value

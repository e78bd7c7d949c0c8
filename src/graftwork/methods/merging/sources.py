"""Facts about named tensors, the same for dictionaries of arrays and for mapped files, without widening or copying a whole
tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.bfloat16 import BLOCK
from graftwork.core.tensor_files import TensorSource

__all__ = ["are_equal", "dtype_name", "is_float", "largest_magnitude", "lazy", "num_not_finite", "release", "shape"]

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def shape(source: Tensors, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor."""
    return source.shape(name) if isinstance(source, TensorSource) else tuple(source[name].shape)


def dtype_name(source: Tensors, name: str) -> str:
    """Return the type for messages: ``"BF16"`` of files, ``"float32"`` of arrays."""
    return source.dtype_name(name) if isinstance(source, TensorSource) else str(source[name].dtype)


def is_float(source: Tensors, name: str) -> bool:
    """Return whether a tensor holds real floating-point numbers."""
    return source.is_float(name) if isinstance(source, TensorSource) else bool(np.issubdtype(source[name].dtype, np.floating))


def lazy(source: Tensors, name: str) -> Any:
    """Return the values; bfloat16 of a file is widened slice by slice (see :class:`graftwork.core.bfloat16.WidenedTensor`)."""
    return source.lazy(name) if isinstance(source, TensorSource) else source[name]


def release(name: str, *sources: Tensors) -> None:
    """Give memory back into which files were mapped for a tensor; arrays stay."""
    for source in sources:
        if isinstance(source, TensorSource) and name in source:
            source.release(name)


def are_equal(first: Any, second: Any) -> bool:
    """Return whether two tensors hold the same values; NaN equals NaN."""
    if first.shape != second.shape:
        return False
    flat, other = first.reshape(-1), second.reshape(-1)
    # equal_nan raises for types that cannot hold NaN.
    nan = np.issubdtype(first.dtype, np.inexact) and np.issubdtype(second.dtype, np.inexact)
    return all(np.array_equal(flat[part], other[part], equal_nan=bool(nan)) for part in _blocks(flat.size))


def num_not_finite(values: Any) -> int:
    """Return how many entries are NaN or infinite."""
    flat = values.reshape(-1)
    return sum(int(np.count_nonzero(~np.isfinite(flat[part]))) for part in _blocks(flat.size))


def largest_magnitude(values: Any) -> float:
    """Return the largest absolute value, NaN if there is one, 0 for no values."""
    flat = values.reshape(-1)
    largest = 0.0
    for part in _blocks(flat.size):
        block = flat[part]
        largest = float(np.maximum(largest, np.maximum(-block.min(), block.max())))  # np.maximum keeps NaN
    return largest


def _blocks(size: int) -> Iterator[slice]:
    return (slice(begin, begin + BLOCK) for begin in range(0, size, BLOCK))

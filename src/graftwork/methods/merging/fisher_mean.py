"""The Fisher-weighted mean: each entry is averaged with weights ``coefficient * Fisher information``, tensor by tensor.

If model ``i`` is the peak of a Gaussian with diagonal precision ``F_i``, this is the peak of the product of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.methods.merging.sources import lazy

__all__ = ["fisher_mean", "information_scale"]

Array = NDArray[Any]
_CHUNK = 1 << 17  # entries worked on at once: the buffers stay in the processor's cache


def information_scale(information: Mapping[str, Array], names: Iterable[str], model: str = "") -> float:
    """Return the factor that gives the Fisher information of a model a Euclidean norm of 1 over some tensors.

    Args:
        information: Fisher information by name.
        names: The tensors that count.
        model: What messages call the model.

    Raises:
        DataError: If it holds a negative number, NaN or infinity, or is zero everywhere.
    """
    total = 0.0
    for name in names:
        flat = lazy(information, name).reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            part = np.asarray(flat[start : start + _CHUNK], np.float64)
            if not (np.isfinite(part).all() and (part >= 0.0).all()):
                raise DataError(f"The Fisher information{_of(model)} at {name!r} holds negative numbers, NaN or infinity.")
            total += float(np.dot(part, part))
    if total == 0.0:
        raise DataError(
            f"The Fisher information{_of(model)} is zero everywhere: its answers do not depend on any merged parameter."
        )
    return 1.0 / math.sqrt(total)


def _of(model: str) -> str:
    return f" of {model}" if model else ""


def fisher_mean(
    values: Sequence[Array],
    information: Sequence[Array] | None,
    coefficients: Sequence[float],
    *,
    scales: Sequence[float] | None = None,
    floors: Sequence[float] | None = None,
) -> Array:
    """Return the weighted mean of one tensor of several models.

    Where all weights are 0 the first model's value stays; where all models agree, their value does, bit for bit.

    Args:
        values: One array for each model, of one shape.
        information: Fisher information of each, of the same shape, at least 0; None weighs all entries alike (isotropic).
        coefficients: One for each model, at least 0.
        scales: Factor on the information of each model; None is 1.
        floors: Least scaled information of each model; None is 0.

    Returns:
        The mean in the widest type of the values, float32 at least.
    """
    dtype = np.result_type(np.float32, *(value.dtype for value in values))
    flats = [value.reshape(-1) for value in values]
    weights = None if information is None else [part.reshape(-1) for part in information]
    scales, floors = scales or (1.0,) * len(values), floors or (0.0,) * len(values)
    merged = np.empty(flats[0].size, dtype)
    for start in range(0, merged.size, _CHUNK):
        window = slice(start, start + _CHUNK)
        first = np.asarray(flats[0][window], dtype)
        total, change = np.zeros(first.size, np.float64), np.zeros(first.size, np.float64)
        for index, (flat, coefficient) in enumerate(zip(flats, coefficients, strict=True)):
            weight: Array | float = coefficient
            if weights is not None:
                precision = np.asarray(weights[index][window], np.float64) * scales[index]
                weight = coefficient * np.maximum(precision, floors[index])
            total += weight
            if index:
                # As differences from the first model: where all agree, the change is exactly 0.
                change += weight * (np.asarray(flat[window], np.float64) - first)
        # Where no model has any information the change is 0 already, and the first model's value stays.
        np.divide(change, total, out=change, where=total > 0.0)
        merged[window] = first + change
    return merged.reshape(values[0].shape)

"""Task arithmetic: add scaled changes of tuned models to their base.

Paper: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, https://arxiv.org/abs/2212.04089
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger

__all__ = ["TaskArithmeticMerger", "add_changes", "check_weights"]

Array = NDArray[Any]
_CHUNK = 1 << 17  # entries worked on at once: the buffers stay in the processor's cache


def check_weights(weights: Sequence[float] | None, num_models: int | None = None) -> None:
    """Refuse weights that are not finite, or of another number than the models.

    Raises:
        ConfigError: Naming the values.
    """
    if weights is None:
        return
    if not all(math.isfinite(weight) for weight in weights):
        raise ConfigError(f"`weights` must be finite numbers; got {tuple(weights)!r}.")
    if num_models is not None and len(weights) != num_models:
        raise ConfigError(f"`weights` has {len(weights)} numbers for {num_models} models; give one per model.")


def add_changes(start: Array, models: Sequence[Array], weights: Sequence[float], dtype: np.dtype[Any]) -> Array:
    """Return ``start + sum_i weights_i * (models_i - start)`` in ``dtype``; entries that no model changes stay as they are, bit
    for bit."""
    flat, flats = start.reshape(-1), [model.reshape(-1) for model in models]
    merged = np.empty(flat.size, dtype)
    # At least 1: a tensor may be empty.
    scratch = np.empty(min(_CHUNK, max(flat.size, 1)), dtype)
    for begin in range(0, flat.size, _CHUNK):
        window = slice(begin, begin + _CHUNK)
        out, first = merged[window], flat[window]
        change = scratch[: out.size]
        out[...] = first
        for model, weight in zip(flats, weights, strict=True):
            np.subtract(model[window], first, out=change, dtype=dtype)
            if weight != 1.0:
                # dtype.type keeps the product in this type; a NumPy float64 scalar would not.
                np.multiply(change, dtype.type(weight), out=change)
            out += change
    return merged.reshape(start.shape)


class TaskArithmeticMerger(Merger):
    """``base + scaling * sum_i weight_i * (expert_i - base)``.

    Args:
        scaling: Common factor; 0.4 is the usual value without validation data, 0.1 to 1 when tuned.
        weights: Weight of each model; None weighs all by 1. Negative ones make the model forget what its expert learned.

    Raises:
        ConfigError: If a number is not finite.
    """

    def __init__(self, *, scaling: float = 0.4, weights: Sequence[float] | None = None) -> None:
        if not math.isfinite(scaling):
            raise ConfigError(f"`scaling` must be a finite number; got {scaling!r}.")
        check_weights(weights)
        self.scaling = scaling
        self.weights = None if weights is None else tuple(weights)

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        check_weights(self.weights, len(experts))
        weights = self.weights or (1.0,) * len(experts)
        dtype = np.result_type(base.dtype, np.float32)
        return add_changes(base, experts, [self.scaling * weight for weight in weights], dtype)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "task-arithmetic", "scaling": self.scaling, "weights": self.weights}

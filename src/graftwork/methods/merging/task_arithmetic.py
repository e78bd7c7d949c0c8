"""Task arithmetic: add scaled changes of tuned models to their base.

Paper: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, https://arxiv.org/abs/2212.04089
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger

__all__ = ["TaskArithmeticMerger"]

Array = NDArray[Any]
_CHUNK = 1 << 18


class TaskArithmeticMerger(Merger):
    """``base + scaling * sum_i weight_i * (expert_i - base)``.

    Args:
        scaling: Common factor; 0.4 is the usual value without validation data, 0.1 to 1 when tuned.
        weights: Weight of each model; None weighs all by 1.
    """

    def __init__(self, *, scaling: float = 0.4, weights: Sequence[float] | None = None) -> None:
        self.scaling = scaling
        self.weights = None if weights is None else tuple(weights)

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in float32 or wider."""
        weights = self.weights or (1.0,) * len(experts)
        if len(weights) != len(experts):
            raise ConfigError(f"`weights` has {len(weights)} numbers for {len(experts)} models; give one per model.")
        dtype = np.result_type(base.dtype, np.float32)
        flat, merged = base.reshape(-1), np.empty(base.size, dtype)
        keep = dtype.type(1.0 - self.scaling * sum(weights))
        scratch = np.empty(min(_CHUNK, max(base.size, 1)), dtype)
        for start in range(0, base.size, _CHUNK):
            window = slice(start, start + _CHUNK)
            out, buffer = merged[window], scratch[: merged[window].size]
            np.multiply(flat[window], keep, out=out)
            for expert, weight in zip(experts, weights, strict=True):
                np.multiply(expert.reshape(-1)[window], dtype.type(self.scaling * weight), out=buffer)
                out += buffer
        return merged.reshape(base.shape)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "task-arithmetic", "scaling": self.scaling, "weights": self.weights}

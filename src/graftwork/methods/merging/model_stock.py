"""Model stock: the mean of a few tuned models, moved towards their base as far as the angle between their changes says.

Paper: Jang, Yun and Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024,
https://arxiv.org/abs/2403.19522 (equation 4: ``t = N cos / (1 + (N - 1) cos)``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.interfaces.merger import Merger

__all__ = ["ModelStockMerger"]

Array = NDArray[Any]


class ModelStockMerger(Merger):
    """``t * mean + (1 - t) * base`` with ``t`` from the mean cosine between the changes of each two models; tensor by tensor.

    Args:
        filter_wise: Whether each vector along the last dimension has a ``t`` of its own (of a vector its only one).
    """

    num_models: ClassVar[tuple[int, int | None]] = (2, None)

    def __init__(self, *, filter_wise: bool = False) -> None:
        self.filter_wise = filter_wise

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor, in the base's type, float32 at least."""
        dtype = np.result_type(base.dtype, np.float32)
        rows = base.shape if self.filter_wise and base.ndim > 1 else (base.size,)
        start = np.asarray(base, dtype).reshape(rows)
        changes = [np.asarray(expert, dtype).reshape(rows) - start for expert in experts]
        lengths = [np.sqrt(np.sum(np.square(change, dtype=np.float64), axis=-1)) for change in changes]
        cosines = [
            np.clip(
                np.sum(np.multiply(changes[i], changes[j], dtype=np.float64), axis=-1)
                / np.maximum(lengths[i] * lengths[j], 1e-6),
                -1.0,
                1.0,
            )
            for i, j in combinations(range(len(changes)), 2)
        ]
        cosine = np.mean(cosines, axis=0)[..., None]
        count = len(changes)
        divisor = 1.0 + (count - 1) * cosine
        # Opposing changes have no such point: the base stays.
        is_singular = np.abs(divisor) < 1e-6
        t = np.where(is_singular, 0.0, count * cosine / np.where(is_singular, 1.0, divisor))
        merged = start + t * (sum(changes) / count)
        return np.asarray(merged, dtype).reshape(base.shape)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "model-stock", "filter_wise": self.filter_wise}

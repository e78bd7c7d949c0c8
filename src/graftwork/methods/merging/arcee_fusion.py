"""Arcee fusion: take over from a tuned model the entries alone that matter most, by a threshold that each tensor sets for itself.

Method of mergekit, https://arcee.ai. The importance of an entry is the size of its change times the Kullback-Leibler divergence between
the softmax of its row in the tuned model and in the base. Taken over is what reaches the median plus one and a half interquartile ranges.

Departure: quantiles are exact. mergekit draws a million entries where a tensor has more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.interfaces.merger import Merger

__all__ = ["ArceeFusionMerger", "fusion_importance"]

Array = NDArray[Any]
_SMALL = 1e-8


def fusion_importance(base: Array, expert: Array) -> Array:
    """Return the importance of each entry, in the shape of the tensors.

    Args:
        base: Float32 or wider; rows are along the last dimension.
        expert: Likewise.
    """
    before, after = _softmax(base) + _SMALL, _softmax(expert) + _SMALL
    divergence = np.sum(after * np.log(after / before), axis=-1, keepdims=True)
    return np.asarray(np.abs(expert - base) * divergence)


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


class ArceeFusionMerger(Merger):
    """See the module. It has no settings."""

    num_models: ClassVar[tuple[int, int | None]] = (1, 1)

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        dtype = np.result_type(base.dtype, np.float32)
        start, tuned = np.asarray(base, dtype), np.asarray(experts[0], dtype)
        if not start.size:
            return start.copy()
        # One number is a row of its own.
        importance = fusion_importance(np.atleast_1d(start), np.atleast_1d(tuned))
        places = [int(share * (importance.size - 1)) for share in (0.25, 0.5, 0.75)]
        low, middle, high = np.partition(importance, places, axis=None)[places]
        is_taken = (importance >= middle + 1.5 * (high - low)).reshape(start.shape)
        return np.asarray(np.where(is_taken, tuned, start), dtype)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "arcee-fusion"}

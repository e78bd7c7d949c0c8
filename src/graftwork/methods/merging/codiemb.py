r"""Delta-guided fusion: a mean of changes in which each parameter listens most to the model that moved it most.

Paper: "CoDiEmb: A Collaborative yet Distinct Framework for Unified Representation Learning in Information Retrieval and Semantic
Textual Similarity", 2025, https://arxiv.org/abs/2508.11442. With :math:`\delta_i = \theta_i - \theta_0` the merged model is
:math:`\theta_0 + \sum_i w_i \delta_i` with :math:`w_i = |\delta_i| / \sum_j |\delta_j|`. Whether the weights are taken entry by
entry or from the norm of whole tensors is not known for sure; both are here.

The other half of the system is how the checkpoints are trained: batches of one task each
(:class:`graftwork.data.single_task_batches.SingleTaskBatches`) with losses of their own (:mod:`graftwork.nn.embedding_losses`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import add_changes

__all__ = ["DeltaGuidedMerger"]

Array = NDArray[Any]
Grain = Literal["element", "tensor"]
_CHUNK = 1 << 17  # entries worked on at once: the buffers stay in the processor's cache


class DeltaGuidedMerger(Merger):
    """``base + scaling * sum_i w_i * (model_i - base)``, the weights of each parameter in proportion to the size of its changes.

    Args:
        grain: ``element`` takes the weights entry by entry, ``tensor`` from the norms of the changes of whole tensors.
        scaling: Common factor on the changes.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    def __init__(self, *, grain: Grain = "element", scaling: float = 1.0) -> None:
        if grain not in get_args(Grain):
            raise ConfigError(f"`grain` must be one of {', '.join(get_args(Grain))}; got {grain!r}.")
        if not math.isfinite(scaling):
            raise ConfigError(f"`scaling` must be a finite number; got {scaling!r}.")
        self.grain, self.scaling = grain, scaling

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least; entries that no model changed stay as they are."""
        dtype = np.result_type(base.dtype, np.float32)
        flat, flats = base.reshape(-1), [expert.reshape(-1) for expert in experts]
        if self.grain == "tensor":
            sizes = np.sqrt([_squares(flat, expert, dtype) for expert in flats])
            total = float(sizes.sum())
            weights = [self.scaling * float(size) / total if total > 0 else 0.0 for size in sizes]
            return add_changes(base, experts, weights, dtype)
        merged = np.empty(flat.size, dtype)
        for begin in range(0, flat.size, _CHUNK):
            window = slice(begin, begin + _CHUNK)
            first = np.asarray(flat[window], dtype)
            top, bottom = np.zeros(first.size, dtype), np.zeros(first.size, dtype)
            for expert in flats:
                change = np.subtract(expert[window], first, dtype=dtype)
                size = np.abs(change)
                bottom += size
                top += size * change
            np.divide(top, bottom, out=top, where=bottom > 0)
            merged[window] = first + dtype.type(self.scaling) * top
        return merged.reshape(base.shape)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "codiemb", "grain": self.grain, "scaling": self.scaling}


def _squares(base: Array, expert: Array, dtype: np.dtype[Any]) -> float:
    """Return the sum of squared changes, slice by slice."""
    total = 0.0
    for begin in range(0, base.size, _CHUNK):
        change = np.subtract(expert[begin : begin + _CHUNK], base[begin : begin + _CHUNK], dtype=dtype)
        total += float(np.dot(change, change))
    return total

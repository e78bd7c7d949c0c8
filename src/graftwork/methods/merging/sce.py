"""SCE: select the entries in which models differ most, calculate a weight for each model from the size of its change, and erase what
goes against the elected sign.

Paper: Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024, https://arxiv.org/abs/2408.07990, section 3.3; in the form of
mergekit, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.sparse_changes import kept_largest

__all__ = ["SceMerger"]

Array = NDArray[Any]
_SMALL = 1e-6


class SceMerger(Merger):
    """The base plus the weighted mean of the changes that agree with the sign of their sum.

    The weight of a model is its share of the mean squared changes of the selected entries; where nothing changed, all weigh alike.

    Args:
        select_topk: Share of the entries with different changes that is selected, those with the largest variance over the models, in
            [0, 1]; 1 selects everything. The changes of one model have no variance: then nothing is selected below 1.

    Raises:
        ConfigError: If it is out of range.
    """

    def __init__(self, *, select_topk: float = 1.0) -> None:
        if not 0.0 <= select_topk <= 1.0:
            raise ConfigError(f"`select_topk` is a share from 0 to 1; got {select_topk!r}.")
        self.select_topk = select_topk

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        dtype = np.result_type(base.dtype, np.float32)
        start = np.asarray(base, dtype)
        changes = [np.subtract(np.asarray(expert, dtype), start) for expert in experts]
        if self.select_topk < 1.0:
            selected = self._selected(changes)
            for change in changes:
                change *= selected
        sizes = np.array([float(np.mean(np.square(change, dtype=np.float64))) if change.size else 0.0 for change in changes])
        total = float(sizes.sum())
        weights = sizes / total if total >= _SMALL else np.full(len(sizes), 1.0 / len(sizes))
        upwards = sum(changes) >= 0
        merged, agreeing = np.zeros(start.shape, dtype), np.zeros(start.shape, dtype)
        for change, weight in zip(changes, weights, strict=True):
            agrees = np.where(upwards, change > 0, change < 0)
            merged += np.where(agrees, dtype.type(weight) * change, 0)
            agreeing += dtype.type(weight) * agrees
        return np.asarray(start + merged / np.maximum(agreeing, dtype.type(_SMALL)), dtype)

    def _selected(self, changes: Sequence[Array]) -> Array:
        """Return 1 for the entries whose changes vary most, else 0."""
        variance = np.var(changes, axis=0)
        return kept_largest(variance, int(np.count_nonzero(variance) * self.select_topk), 0)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "sce", "select_topk": self.select_topk}

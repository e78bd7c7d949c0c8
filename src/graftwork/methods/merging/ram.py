"""RAM and RAM+: entries that several models changed are averaged over those, entries that one model changed are kept whole.

Paper: "Reinforced Agent Merging", https://arxiv.org/abs/2601.13572, in the form of mergekit, tensor by tensor (its ``ram`` and
``ramplus_tl``). Agents that learn by reinforcement change few entries, so that a mean over all models would shrink what one of them
learned. RAM+ makes entries of one model larger, as far as the model shares other entries with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger

__all__ = ["RamMerger", "RamPlusMerger"]

Array = NDArray[Any]


class RamMerger(Merger):
    """The base plus, for each entry, the mean over the models that changed it.

    Args:
        epsilon: Magnitude up to which a change is none, at least 0.

    Raises:
        ConfigError: If it is out of range.
    """

    def __init__(self, *, epsilon: float = 1e-5) -> None:
        if not 0.0 <= epsilon < math.inf:
            raise ConfigError(f"`epsilon`, up to which a change is none, must be at least 0; got {epsilon!r}.")
        self.epsilon = epsilon

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        dtype = np.result_type(base.dtype, np.float32)
        start = np.asarray(base, dtype)
        count = np.zeros(start.shape, np.int32)
        # Changes are made twice: holding those of all models would take as much memory as all models.
        for expert in experts:
            count += self._changed(start, expert)[1]
        merged = np.zeros(start.shape, dtype)
        for expert in experts:
            change, is_changed = self._changed(start, expert)
            factor = self._factor(is_changed, count)
            merged += np.where(is_changed, np.where(count == 1, dtype.type(factor) * change, change / np.maximum(count, 1)), 0)
        return np.asarray(start + merged, dtype)

    def _changed(self, base: Array, expert: Array) -> tuple[Array, Array]:
        change: Array = np.subtract(np.asarray(expert, base.dtype), base)
        return change, np.abs(change) > self.epsilon

    def _factor(self, is_changed: Array, count: Array) -> float:
        """Return the factor on the entries that this model alone changed."""
        return 1.0

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "ram", "epsilon": self.epsilon}


class RamPlusMerger(RamMerger):
    """As :class:`RamMerger`; entries that one model alone changed are multiplied by ``1 + r * min(shared / own, alpha)``, with the numbers
    of entries of the tensor that it shares with others and that are its own.

    Args:
        r: Strength of the factor, at least 0.
        alpha: Largest ratio that counts, at least 0.
        epsilon: Magnitude up to which a change is none, at least 0.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, *, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5) -> None:
        super().__init__(epsilon=epsilon)
        if not 0.0 <= r < math.inf or not 0.0 <= alpha < math.inf:
            raise ConfigError(f"`r` and `alpha` must be at least 0; got {r!r} and {alpha!r}.")
        self.r, self.alpha = r, alpha

    def _factor(self, is_changed: Array, count: Array) -> float:
        own = int(np.count_nonzero(is_changed & (count == 1)))
        shared = int(np.count_nonzero(is_changed)) - own
        # A model without entries of its own has none to enlarge.
        return 1.0 + self.r * min(shared / own, self.alpha) if own else 1.0

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "ram-plus", "r": self.r, "alpha": self.alpha, "epsilon": self.epsilon}

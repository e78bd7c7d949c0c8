"""NearSwap: entries of the base go over to those of one model, each by at most a fixed distance.

Method of mergekit, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001: where two models are near, the second one takes over;
where they are far apart, the first one stays, but for a step of size ``t``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger

__all__ = ["NearSwapMerger"]

Array = NDArray[Any]


class NearSwapMerger(Merger):
    """``base + clip(expert - base, -t, t)``, tensor by tensor.

    Args:
        t: Largest change of an entry, at least 0, in units of the weights.

    Raises:
        ConfigError: If it is out of range.
    """

    num_models: ClassVar[tuple[int, int | None]] = (1, 1)

    def __init__(self, *, t: float = 1e-3) -> None:
        if not 0.0 <= t < math.inf:
            raise ConfigError(f"`t`, the largest change of an entry, must be at least 0; got {t!r}.")
        self.t = t

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        dtype = np.result_type(base.dtype, np.float32)
        start = np.asarray(base, dtype)
        change = np.clip(np.asarray(experts[0], dtype) - start, -self.t, self.t)
        return np.asarray(start + change, dtype)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "nearswap", "t": self.t}

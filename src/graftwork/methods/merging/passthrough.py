"""Passthrough: the tensors of one model as they are, or scaled. With slices of layers (a YAML file of mergekit) it stacks layers
of several models into a deeper one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger

__all__ = ["PassthroughMerger"]

Array = NDArray[Any]


class PassthroughMerger(Merger):
    """``scale * model``.

    Args:
        scale: Factor on every tensor; 0 for the output projections of repeated layers makes them start as no layers at all.

    Raises:
        ConfigError: If it is not finite.
    """

    num_models: ClassVar[tuple[int, int | None]] = (1, 1)
    needs_base: ClassVar[bool] = False

    def __init__(self, *, scale: float = 1.0) -> None:
        if not math.isfinite(scale):
            raise ConfigError(f"`scale` must be a finite number; got {scale!r}.")
        self.scale = scale

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the model's tensor, scaled, float32 at least."""
        dtype = np.result_type(experts[0].dtype, np.float32)
        values = np.array(experts[0], dtype)
        return values if self.scale == 1.0 else np.multiply(values, dtype.type(self.scale))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "passthrough", "scale": self.scale}

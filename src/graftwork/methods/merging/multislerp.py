"""Multi-SLERP: a weighted mean of any number of models on the sphere, in one step from the direction of their plain mean.

Method of mergekit, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea. Directions are projected on the tangent space at their
normalised weighted mean, averaged there, and brought back by the exponential map; the length is the weighted mean of the lengths. The
Karcher mean (:class:`graftwork.methods.merging.spherical.KarcherMerger`) repeats such steps until nothing pulls any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import check_weights

__all__ = ["MultiSlerpMerger"]

Array = NDArray[Any]


class MultiSlerpMerger(Merger):
    """The mean of what models changed, where a base is given, else of themselves; tensor by tensor, in float64.

    Args:
        weights: Weight of each model; None weighs all equally. Negative ones are allowed.
        normalize: Whether weights are divided by their sum.
        eps: Length below which a vector has no direction; above 0.

    Raises:
        ConfigError: If a number is out of range.
    """

    needs_base: ClassVar[bool] = False

    def __init__(self, *, weights: Sequence[float] | None = None, normalize: bool = True, eps: float = 1e-8) -> None:
        check_weights(weights)
        if not 0.0 < eps < math.inf:
            raise ConfigError(f"`eps` must be above 0; got {eps!r}.")
        if weights is not None and normalize and math.fsum(weights) == 0.0:
            raise ConfigError(
                f"`weights` add up to 0 and cannot be normalised; got {tuple(weights)!r}. Set normalize to false, or other weights."
            )
        self.weights = None if weights is None else tuple(weights)
        self.normalize, self.eps = normalize, eps

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the mean, float32 at least.

        Raises:
            DataError: If directions of three or more models cancel each other out.
        """
        check_weights(self.weights, len(experts))
        dtype = np.result_type(*(expert.dtype for expert in experts), np.float32)
        if len(experts) == 1:
            return np.array(experts[0], dtype)
        weights = np.asarray(self.weights or (1.0,) * len(experts))
        weights = weights / weights.sum() if self.normalize else weights
        start = np.asarray(base, np.float64).reshape(-1) if self.has_base else 0.0
        flat = [np.asarray(expert, np.float64).reshape(-1) - start for expert in experts]
        norms = np.array([np.linalg.norm(item) for item in flat])
        units = [item / (norm + self.eps) for item, norm in zip(flat, norms, strict=True)]
        mean: Array = sum(weight * unit for weight, unit in zip(weights, units, strict=True))  # type: ignore[assignment]
        length = float(np.linalg.norm(mean))
        if length >= self.eps:
            merged = float(weights @ norms) * self._at(mean / length, units, weights)
        elif len(experts) == 2 or not norms.any():
            # Opposite directions have no arc, and zeros no direction: the line.
            merged = sum(weight * item for weight, item in zip(weights, flat, strict=True))
        else:
            raise DataError(
                f"{name!r}: the weighted directions of the models cancel each other out, so they have no mean on the sphere. "
                "Use other weights, or the method averaging."
            )
        return np.asarray(start + merged, dtype).reshape(experts[0].shape)

    def _at(self, mean: Array, units: Sequence[Array], weights: Array) -> Array:
        """Return the direction that the mean in the tangent space at ``mean`` leads to."""
        tangent: Array = sum(  # type: ignore[assignment]
            weight * (unit - float(unit @ mean) * mean) for weight, unit in zip(weights, units, strict=True)
        )
        angle = float(np.linalg.norm(tangent)) + self.eps
        return math.cos(angle) * mean + (math.sin(angle) / angle) * tangent

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "multislerp", "weights": self.weights, "normalize": self.normalize, "eps": self.eps}

"""Merging of sparsified changes: drop most of what each model changed, make up for it, and add the rest to the base.

What DARE, DELLA, breadcrumbs and magnitude pruning have in common; they differ in which entries of a change are kept. With
``elect="sum"`` only changes that agree with the sign of their sum are added, as in TIES-Merging (Yadav et al., NeurIPS 2023,
https://arxiv.org/abs/2306.01708), here per tensor and in the form of mergekit and peft: signs are elected on weighted changes,
and an exact tie is positive.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import check_weights

__all__ = ["Elect", "PerModel", "Rescale", "SparseChanges", "check_density", "each", "kept_largest", "of_model"]

Array = NDArray[Any]
Elect = Literal["none", "sum"]
Rescale = Literal["probability", "norm", "none"]
PerModel = float | tuple[float, ...]
"""One number for all models, or one for each."""


class SparseChanges(Merger):
    """``base + scaling * combined(weight_i * sparse(expert_i - base))``, tensor by tensor.

    Args:
        density: Share of the entries of each tensor that is kept, in (0, 1]; 1 keeps everything. One for all models, or one each.
        scaling: Factor on the merged change, ``lambda``.
        weights: Weight of each model; None weighs all by 1.
        elect: Whether only changes with the elected sign are added.
        normalize: Whether the sum is divided by the sum of the weights (with an election: of the models that agree).
        rescale: What makes up for dropped entries: ``"probability"`` divides each kept one by the probability with which it was
            kept, ``"norm"`` gives the change its old sum of magnitudes (mergekit's ``rescale``), ``"none"`` nothing.

    Raises:
        ConfigError: If a number is out of range.
    """

    method: str

    def __init__(
        self,
        *,
        density: PerModel,
        scaling: float,
        weights: Sequence[float] | None,
        elect: Elect,
        normalize: bool,
        rescale: Rescale,
    ) -> None:
        for share in each(density):
            check_density(share)
        check_weights(weights)
        if not math.isfinite(scaling):
            raise ConfigError(f"`scaling` must be a finite number; got {scaling!r}.")
        self.density, self.scaling, self.elect, self.normalize, self.rescale = density, scaling, elect, normalize, rescale
        self.weights = None if weights is None else tuple(weights)

    @abstractmethod
    def keep(self, change: Array, name: str, number: int) -> Array:
        """Return factors on the entries of a change: 0 where it is dropped, else what makes up by probability (1 for nothing).

        Args:
            change: In the tensor's shape, float32 or wider; not to be changed.
            name: Name of the tensor.
            number: Place of the model among the models.
        """

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor in the base's type, float32 at least."""
        check_weights(self.weights, len(experts))
        weights = self.weights or (1.0,) * len(experts)
        self.check_models(len(experts))
        dtype = np.result_type(base.dtype, np.float32)
        start = np.asarray(base, dtype)
        total = np.zeros(start.shape, dtype)
        # Changes are made twice where signs are elected: holding those of all models would take as much memory as all models.
        for number, (expert, weight) in enumerate(zip(experts, weights, strict=True)):
            total += self._change(name, number, start, expert, weight)
        divisor: Any = math.fsum(weights)
        if self.elect == "sum":
            upwards = total >= 0
            total = np.zeros(start.shape, dtype)
            agreeing = np.zeros(start.shape, dtype)
            for number, (expert, weight) in enumerate(zip(experts, weights, strict=True)):
                change = self._change(name, number, start, expert, weight)
                agrees = np.where(upwards, change > 0, change < 0)
                total += np.where(agrees, change, 0)
                agreeing += dtype.type(weight) * agrees
            divisor = np.where(agreeing == 0, dtype.type(1), agreeing)
        elif abs(divisor) < 1e-8:
            divisor = 1.0
        if self.normalize:
            total = total / divisor
        return np.asarray(start + dtype.type(self.scaling) * total, dtype)

    def check_models(self, num_models: int) -> None:
        """Refuse settings of another number of models.

        Raises:
            ConfigError: Naming the setting.
        """
        for key in ("density", "gamma", "epsilon"):
            count = len(each(getattr(self, key, 0.0)))
            if count not in (1, num_models):
                raise ConfigError(f"`{key}` has {count} numbers for {num_models} models; give one, or one per model.")

    def _change(self, name: str, number: int, base: Array, expert: Array, weight: float) -> Array:
        change: Array = np.subtract(expert, base, dtype=base.dtype)
        if of_model(self.density, number) < 1.0 and change.size:
            factors = self.keep(change, name, number)
            if self.rescale != "probability":
                factors = (factors != 0).astype(base.dtype)
            kept = change * factors
            if self.rescale == "norm":
                before, after = float(np.abs(change).sum(dtype=np.float64)), float(np.abs(kept).sum(dtype=np.float64))
                # Below this a quotient of two roundings would blow up what is left.
                kept *= base.dtype.type(before / after if min(before, after) >= 1e-7 else 1.0)
            change = kept.astype(base.dtype, copy=False)
        return change if weight == 1.0 else change * base.dtype.type(weight)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {
            "method": self.method,
            "density": self.density,
            "scaling": self.scaling,
            "weights": self.weights,
            "elect": self.elect,
            "normalize": self.normalize,
            "rescale": self.rescale,
        }


def each(value: PerModel) -> tuple[float, ...]:
    """Return a setting as one number or more: of all models, or of each."""
    return (float(value),) if isinstance(value, int | float) else tuple(value)


def of_model(value: PerModel, number: int) -> float:
    """Return the setting of one model."""
    values = each(value)
    return values[0] if len(values) == 1 else values[number]


def check_density(density: float) -> None:
    """Refuse a share that is out of range.

    Raises:
        ConfigError: Naming it.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigError(f"`density` must be above 0 and at most 1 (0.2 keeps 20 % of the entries); got {density!r}.")


def kept_largest(change: Array, count: int, skipped: int = 0) -> Array:
    """Return 1 for ``count`` entries of the largest magnitude after the ``skipped`` largest, 0 for the others.

    Args:
        change: Any shape. Of equal magnitudes any may be kept.
        count: At least 0.
        skipped: At least 0.
    """
    magnitude = np.abs(change).reshape(-1)
    mask = np.zeros(magnitude.size, change.dtype)
    high = max(0, magnitude.size - skipped)
    low = max(0, high - count)
    if high > low:
        edges = sorted({edge for edge in (low, high) if 0 <= edge < magnitude.size})
        order = np.argpartition(magnitude, edges) if edges else np.arange(magnitude.size)
        mask[order[low:high]] = 1
    return mask.reshape(change.shape)

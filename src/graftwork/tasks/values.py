"""What kinds of numbers have in common: standardised by the training rows, learned entry by entry, shown in the user's units."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import TaskKind
from graftwork.tasks.answers import flat_rows, listed, value_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ValueKind", "with_origin"]


class ValueKind(TaskKind):
    """``size`` numbers a row (or position), axis 1 of targets and outputs; NaN where missing."""

    def fit_spec(self, spec: TaskSpec, target: Array) -> TaskSpec:
        """Return the task with center and scale of the training rows, unless it has them."""
        if spec.center:
            return spec
        # float64: variances of large values cancel in float32.
        known = np.asarray(target, dtype=np.float64)
        axes = tuple(axis for axis in range(known.ndim) if axis != 1)
        center, scale = np.nanmean(known, axis=axes), np.nanstd(known, axis=axes)
        # A value that never varies keeps its unit; dividing by 0 would make every loss NaN.
        # Compared with the values themselves, whose unit may be tiny; rounding alone gives a constant one a deviation.
        size = np.abs(np.nan_to_num(known)).max(axis=axes, initial=0.0)
        scale = np.where(scale > 1e-12 * size, scale, 1.0)
        return replace(spec, center=tuple(map(float, center)), scale=tuple(map(float, scale)))

    # --- learning ---

    @abstractmethod
    def entry_losses(self, output: Tensor, wanted: Tensor, *, robust: bool) -> Tensor:
        """Return the loss of each entry, for standardised targets of equal shape."""

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the mean of :meth:`entry_losses` over known entries."""
        import torch

        from graftwork.tasks.tensors import masked_mean, standardise

        known = ~torch.isnan(target)
        # Filled before the loss: the gradient of NaN is NaN even where the mask drops the value.
        wanted = standardise(spec, torch.where(known, target, torch.zeros_like(target)))
        return masked_mean(self.entry_losses(output, wanted, robust=robust), known)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of known entries."""
        return (~target.isnan()).sum()

    def prior_of_spread(self, spread: Tensor) -> Tensor:
        """Return the loss of each entry that is ``spread`` away from its mean: a scale, not always the optimum."""
        return spread.abs()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of the mean of each value."""
        import torch

        from graftwork.tasks.tensors import standardise

        wanted = standardise(spec, target.double())
        # All but the values' own axis: each value has its mean over rows and positions.
        axes = tuple(axis for axis in range(wanted.ndim) if axis != 1)
        return torch.nanmean(self.prior_of_spread(wanted - torch.nanmean(wanted, dim=axes, keepdim=True)))

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return values in the user's units."""
        from graftwork.tasks.tensors import unstandardise

        return unstandardise(spec, output)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return half the squared difference of standardised values."""
        from graftwork.tasks.tensors import normal_divergence

        return normal_divergence(reference, output)

    # --- people ---

    def size_words(self, spec: TaskSpec) -> str:
        """Return the number of values if there are several."""
        return f" of {spec.size} values" if spec.size > 1 else ""

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task``, or ``task[column]`` for each of several values."""
        values = with_origin(spec, flat_rows(values))
        if values.shape[1] == 1:
            return {spec.name: values[:, 0]}
        return {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(value_names(spec, values.shape[1]))}

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value``, or ``values`` by column if there are several."""
        values = with_origin(spec, flat_rows(values))
        columns = [listed(values[:, index]) for index in range(values.shape[1])]
        if len(columns) == 1:
            return [{"value": value} for value in columns[0]]
        names = value_names(spec, len(columns))
        return [{"values": dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the numbers with four digits."""
        numbers = np.ravel(with_origin(spec, np.reshape(value, (1, -1)) if spec.details.get("origin") else value))
        if np.isnan(numbers).all():
            return ""
        digits = _decimals(spec) if spec.details.get("origin") else 0
        return ", ".join(f"{float(item):.{digits}f}" if digits else plain_number(float(item)) for item in numbers)


def with_origin(spec: TaskSpec, values: Array) -> Array:
    """Return values ``[N, size]`` in the user's units: float64 with the task's origin added, if it has one (see
    ``origin_of``)."""
    origin = spec.details.get("origin")
    # float64: the sum needs the digits that float32 does not have, see `origin_of`.
    return values.astype(np.float64) + np.asarray(origin, dtype=np.float64) if origin else values


def _decimals(spec: TaskSpec) -> int:
    """Return how many decimals show a hundredth of a task's spread, at least 1."""
    return max(1, 2 - int(np.floor(np.log10(min(spec.scale or (1.0,))))))

"""Aggregators: what turns the gradients of ``T`` tasks into one direction.

Any function from ``[T, P]`` to ``[P]`` is an aggregator. Most published ones are a weighted sum of the rows whose weights depend
only on the rows' inner products; a :class:`WeightedAggregator` says so, and then the sum needs no memory of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from graftwork.math.gramian import combine_rows_, gramian

__all__ = ["Aggregator", "PlainAggregator", "WeightedAggregator", "all_finite", "as_aggregator", "present_tasks"]


def all_finite(tensor: Tensor) -> bool:
    """Return whether no number of a tensor is NaN or infinite, without a copy of it."""
    if not tensor.numel():
        return True
    lowest, highest = torch.aminmax(tensor)  # both are NaN if any number is
    return bool(torch.isfinite(lowest) & torch.isfinite(highest))


def present_tasks(losses: Tensor, gradients: Tensor) -> Tensor:
    """Return which tasks have labels in the batch, bool ``[T]``: the loss of a task without labels is exactly 0 and so is its
    gradient.

    Args:
        losses: ``[T]``.
        gradients: One row per task, ``[T, P]``; the rows of their inner products will do as well.
    """
    # A loss can be exactly 0 with labels too (a hinge, say). Only for such losses the rows are read, which is slow.
    present = losses.detach() != 0
    for index in (~present).nonzero().flatten().tolist():
        present[index] = bool(gradients[index].any())
    return present


class Aggregator(ABC):
    """A function of the matrix of per-task gradients, with memory between steps if the method needs it."""

    @abstractmethod
    def combine_(self, matrix: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the direction ``[P]`` and, if the method has such, the weights ``[T]``.

        Args:
            matrix: One gradient per task, ``[T, P]``; may be overwritten, and the direction may be a view of it.
            present: bool ``[T]``; rows of tasks without labels in the batch are zero and marked False.
        """

    def reset(self) -> None:
        """Return to the state before the first step."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values that :meth:`load_state_dict` restores."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class PlainAggregator(Aggregator):
    """Wraps a function ``[T, P] -> [P]``. It sees zero rows for tasks without labels.

    Args:
        function: The aggregation; it must not change its argument.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def combine_(self, matrix: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the function's result, or NaN for gradients that are not finite; there are no weights."""
        if not all_finite(matrix):
            # Solvers fail on NaN with errors of their own; a direction of NaN is noticed by the training loop.
            return torch.full_like(matrix[0], torch.nan), None
        return self.function(matrix), None


class WeightedAggregator(Aggregator):
    """A direction that is a weighted sum of the rows."""

    statistic: Literal["gramian", "matrix"] = "gramian"
    """What the weights are computed from: the ``[T, T]`` inner products, or the whole ``[T, P]`` matrix."""
    precision: torch.dtype = torch.float64
    """The dtype in which the gradients were computed; whoever asks for weights sets it before. Inner products come in float64,
    but rows that
    differ by rounding errors of this dtype only are no different directions: methods that invert the inner products tell them
    apart by it."""
    skips_absent: bool = True
    """Whether weights are computed among the tasks with labels only. Otherwise the method sees zero rows, which stop some (a
    zero row makes the shortest convex combination zero), but methods with memory per task need all rows."""

    @abstractmethod
    def weights(self, statistic: Tensor) -> Tensor:
        """Return the weights ``[T]`` from the statistic that :attr:`statistic` names; its values must not be changed."""

    def weigh(self, statistic: Tensor, present: Tensor) -> Tensor:
        """Return the weights ``[T]``; a task without labels has weight 0 if :attr:`skips_absent`.

        Gradients that are not finite give weights of NaN: solvers would fail on them with errors of their own, and whoever
            trains notices
        the divergence and knows which task it came from.
        """
        if not all_finite(statistic):
            return torch.full((len(statistic),), torch.nan, dtype=statistic.dtype, device=statistic.device)
        return self._weigh_present(statistic, present)

    def _weigh_present(self, statistic: Tensor, present: Tensor) -> Tensor:
        if not self.skips_absent or bool(present.all()):
            return self.weights(statistic)
        weights = torch.zeros(len(statistic), dtype=statistic.dtype, device=statistic.device)
        if bool(present.any()):
            # Both axes of inner products are tasks; of a matrix of gradients only the first.
            kept = statistic[present][:, present] if self.statistic == "gramian" else statistic[present]
            weights[present] = self.weights(kept).to(weights.dtype)
        return weights

    def combine_(self, matrix: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the weights, then sum in place."""
        self.precision = matrix.dtype
        weights = self.weigh(gramian(matrix) if self.statistic == "gramian" else matrix, present).to(matrix.dtype)
        return combine_rows_(matrix, weights), weights


def as_aggregator(aggregator: Aggregator | Callable[[Tensor], Tensor]) -> Aggregator:
    """Return ``aggregator``, wrapped if it is a bare function."""
    return aggregator if isinstance(aggregator, Aggregator) else PlainAggregator(aggregator)

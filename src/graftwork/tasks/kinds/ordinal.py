"""Ordered classes, one answer a row. Loss: binary cross-entropy of ``P(class > k)`` for each threshold ``k``, mean over
thresholds (Niu et al., "Ordinal Regression with Multiple Output CNN", CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftwork.core.kinds import find_kind
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.scales import word_order
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.tasks.answers import logits
from graftwork.tasks.class_weights import weight_problems
from graftwork.tasks.classes import ClassKind
from graftwork.tasks.metrics import labels
from graftwork.tasks.thresholds import threshold_problems

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Ordinal"]


class Ordinal(ClassKind):
    """Targets ``[N]`` int64, class index, -1 where missing; ``size - 1`` cumulative logits; answers are probabilities ``[N,
    size]``. ``details["thresholds"]`` as for classes without an order."""

    name = "ordinal"
    words = "ordered classes"
    metrics = (
        labels.QUADRATIC_KAPPA,
        labels.ACCURACY,
        labels.BALANCED_ACCURACY,
        labels.F1_MACRO,
        labels.CLASS_DISTANCE,
        labels.LOG_LOSS,
    )

    has_class_thresholds = True

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless weights are numbers and thresholds are in (0, 1)."""
        return (*weight_problems(spec), *threshold_problems(spec))

    def num_outputs(self, spec: TaskSpec) -> int:
        """Return one threshold less than there are classes."""
        return spec.size - 1

    # --- learning ---

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the binary cross-entropy of every threshold, mean over labelled rows and thresholds."""
        from graftwork.tasks.tensors import row_weights, threshold_loss

        return threshold_loss(output, target, row_weights(spec, target))

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the entropy of the thresholds' frequencies."""
        import torch

        from graftwork.tasks.tensors import prior_of_flags, share_above

        return prior_of_flags(share_above(spec, target, torch.arange(spec.num_outputs)))

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return the logits of being above each class but the last."""
        return logits(answers[:, ::-1].cumsum(axis=1)[:, -2::-1])

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each class."""
        import torch

        # [N, K - 1]: P(class > k).
        above = _running_minimum(torch.sigmoid(output))
        first = torch.ones_like(above[:, :1])
        # P(class = k) = P(class > k - 1) - P(class > k), with 1 before the first and 0 after the last.
        return torch.cat([first, above], dim=1) - torch.cat([above, torch.zeros_like(first)], dim=1)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between the Bernoulli distributions of the thresholds."""
        from graftwork.tasks.tensors import bernoulli_divergence

        return bernoulli_divergence(reference, output)

    # --- data ---

    def class_order(self, cells: TargetCells) -> list[str]:
        """Return the order of numbers, of a categorical column, or of words of a known scale."""
        if cells.are_numbers:
            return super().class_order(cells)
        # The order of a categorical column is the user's own and comes before that of a known scale.
        return list(cells.order) if cells.order is not None else word_order(cells.distinct) or cells.distinct

    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return a problem if nobody knows the order of the words."""
        distinct = cells.distinct
        if (request.kind and request.classes) or cells.order is not None or not cells.words or word_order(distinct) is not None:
            return ""
        return (
            f"is to be ordinal but the order of its words is not known ({short_list(distinct, 6)}). "
            f"Give it from low to high: --task-kind '{request.name}=ordinal: {' < '.join(distinct[:3])}'."
        )

    def build(self, request: TargetRequest, cells: TargetCells, order: Sequence[str], reason: str) -> InferredTask:
        """Return the task; two levels have one threshold, so they are a binary task."""
        if len(order) == 2:
            binary = find_kind("binary")
            assert isinstance(binary, ClassKind)
            return binary.build(request, cells, order, f"{reason}; two levels are a binary task")
        return super().build(request, cells, order, reason)


def _running_minimum(above: Tensor) -> Tensor:
    """Make ``P(class > k)`` fall with ``k``: thresholds are learned one by one and may cross. (``cummin`` has no ONNX form.)"""
    import torch

    shift = 1
    while shift < above.shape[1]:
        above = torch.cat([above[:, :shift], torch.minimum(above[:, shift:], above[:, :-shift])], dim=1)
        shift *= 2
    return above


KIND = Ordinal()

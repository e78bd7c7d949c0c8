"""One of several classes, one answer a row. Loss: cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftwork.core.records import TaskSpec
from graftwork.data.reading.target_cells import TargetCells, TargetRequest
from graftwork.tasks.classes import ClassKind
from graftwork.tasks.metrics import labels

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Multiclass"]


class Multiclass(ClassKind):
    """Targets ``[N]`` int64, class index, -1 where missing; ``size`` logits; answers are probabilities ``[N, size]``."""

    name = "multiclass"
    words = "one of several classes"
    metrics = (labels.ACCURACY, labels.BALANCED_ACCURACY, labels.F1_MACRO, labels.LOG_LOSS)

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the cross-entropy, mean over labelled rows."""
        from torch.nn import functional as F

        total = F.cross_entropy(output, target, ignore_index=-1, reduction="sum")
        return total / (target >= 0).sum().clamp(min=1)

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the cross-entropy, mean over rows."""
        from torch.nn import functional as F

        return F.cross_entropy(output, target)

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the entropy of the class frequencies."""
        from graftwork.tasks.tensors import prior_of_classes

        return prior_of_classes(spec, target)

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each class."""
        return output.softmax(dim=1)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between categorical distributions."""
        from graftwork.tasks.tensors import categorical_divergence

        return categorical_divergence(reference, output)

    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return nothing: any classes do."""
        return ""


KIND = Multiclass()

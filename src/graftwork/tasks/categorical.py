"""What kinds have in common whose outputs are logits of one class among several, for a row or for each of its positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import TaskKind
from graftwork.tasks.class_weights import WEIGHTS, weight_problems

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Categorical", "smoothing_of"]


def smoothing_of(spec: TaskSpec) -> float:
    """Return the share of each target that is spread over all classes."""
    return float(spec.details.get("label_smoothing", 0.0))


class Categorical(TaskKind):
    """Outputs ``[N, size]`` or ``[N, size, P]``; targets ``[N]`` or ``[N, P]`` int64, class index, -1 where missing.

    ``details["label_smoothing"]`` is the share of each target that is spread over all classes, in [0, 1); 0 without it.
    ``details["class_weights"]`` holds how much rows of each class weigh in the loss.
    """

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless the smoothing is in [0, 1) and weights are numbers."""
        value, problems = spec.details.get("label_smoothing", 0.0), weight_problems(spec)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < 1.0:
            return problems
        return (f"details['label_smoothing'] must be a number in [0, 1); got {value!r}.", *problems)

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the cross-entropy, mean over the labelled rows or positions."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import class_weight_tensor

        # The sum divided by hand: the library's own mean is NaN in a batch without a label.
        smoothing, weight = smoothing_of(spec), class_weight_tensor(spec, output)
        total = F.cross_entropy(output, target, weight=weight, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        return total / (target >= 0).sum().clamp(min=1)

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the cross-entropy, mean over rows and positions, none of which lacks a label."""
        from torch.nn import functional as F

        if spec.details.get(WEIGHTS):  # the library's own mean divides by the weights of the batch
            return self.loss(spec, output, target, robust=robust)
        return F.cross_entropy(output, target, label_smoothing=smoothing_of(spec))

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

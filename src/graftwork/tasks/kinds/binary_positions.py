"""Yes or no at every position, edges for example. Loss: binary cross-entropy in which the two classes of a row weigh the same
(Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015), mean over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.tasks.maps import MapKind
from graftwork.tasks.metrics import positions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "BinaryPositions"]


class BinaryPositions(MapKind):
    """Targets ``[N, P]`` int64, 0 or 1, -1 where missing; 1 logit a position; answers are the probability of class 1, ``[N, 1,
    P]``.

    Of a network trained with this loss, it is the probability among positions half of which are of class 1.
    """

    name = "binary"
    words = "yes or no for each position"
    metrics = (positions.ODS_F1, positions.F1, positions.MIOU, positions.PIXEL_ACCURACY)
    aliases: ClassVar = {"dense_binary": "pixels"}

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, 1, P]``."""
        return (target_shape[0], 1, *target_shape[1:])

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the mean over rows of half the mean loss of each class.

        Most pixels are no edge: unbalanced, the gradient would be theirs. A class that a row lacks adds nothing.
        """
        import torch
        from torch.nn import functional as F

        logit = output.squeeze(1)
        # clamp: -1 is no target for the library. Those entries are left out below, so their value does not matter.
        values = F.binary_cross_entropy_with_logits(logit, target.clamp(min=0).to(logit.dtype), reduction="none").flatten(1)
        # [B, 2, P]: for each class the positions that are of it.
        members = torch.stack([target == 0, target == 1], dim=1).flatten(2)
        # where, not a product: 0 times an infinite loss is NaN.
        sums = torch.where(members, values.unsqueeze(1), torch.zeros_like(values).unsqueeze(1)).sum(dim=2)
        rows = members.any(dim=2).any(dim=1).sum().clamp(min=1)
        return 0.5 * (sums / members.sum(dim=2).clamp(min=1)).sum() / rows

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of rows with a label."""
        return (target >= 0).flatten(1).any(dim=1).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of the best constant, given how many rows have each class."""
        import torch

        from graftwork.tasks.tensors import entropy

        # In each row a class weighs one half, however many positions it has, so rows are counted and not positions.
        with_class = torch.stack([(target == index).flatten(1).any(dim=1).double().sum() for index in (0, 1)])
        rows = (target >= 0).flatten(1).any(dim=1).sum().clamp(min=1)
        return entropy(with_class / with_class.sum().clamp(min=1)).sum() * with_class.sum() / (2 * rows)

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of class 1."""
        return output.sigmoid()

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between Bernoulli distributions."""
        from graftwork.tasks.tensors import bernoulli_divergence

        return bernoulli_divergence(reference, output)

    def scored(self, spec: TaskSpec, target: Array, prediction: Array) -> tuple[Array, Array]:
        """Return the prediction as ``[N, 1, P]``; ``[N, P]`` is one too."""
        return super().scored(spec, target, prediction[:, None] if prediction.ndim == target.ndim else prediction)


KIND = BinaryPositions()

"""The direction of the surface at every position. Loss: one minus the cosine between output and target."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from graftwork.core.records import TaskSpec
from graftwork.tasks.maps import MapKind
from graftwork.tasks.metrics import positions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Normals"]


class Normals(MapKind):
    """Targets ``[N, 3, P]`` float32: right, up and towards the viewer, NaN where missing; 3 values a position; answers have
    length 1."""

    name = "normals"
    words = "surface direction of each position"
    metrics = (positions.MEAN_ANGLE, positions.WITHIN_11)
    aliases: ClassVar = {"dense_normals": "pixels"}

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return one minus the cosine, mean over positions whose three values are known."""
        import torch
        from torch.nn import functional as F

        from graftwork.tasks.tensors import masked_mean

        known = ~torch.isnan(target).any(dim=1)
        # Any vector will do that has a direction.
        filled = torch.where(known.unsqueeze(1), target, torch.ones_like(target))
        return masked_mean(1.0 - F.cosine_similarity(output, filled, dim=1, eps=1e-6), known)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of positions whose three values are known."""
        return (~target.isnan()).all(dim=1).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of the mean direction."""
        import torch

        # [3]: one mean direction over rows and positions. It need not have length 1, the cosine does not see it.
        mean = torch.nanmean(target.double().movedim(1, 0).flatten(1), dim=1).nan_to_num(1.0)
        constant = mean.view(1, 3, *(1,) * (target.ndim - 2)).expand_as(target)
        return self.loss(spec, constant, target.double())

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return directions of length 1."""
        from torch.nn import functional as F

        return F.normalize(output, dim=1, eps=1e-6)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return one minus the cosine: directions have no density here."""
        from torch.nn import functional as F

        return (1.0 - F.cosine_similarity(reference, output, dim=1, eps=1e-6)).mean()

    def mirror(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the flipped map, whose normals to the right now point to the left."""
        mirrored = target.flip(-1)
        return mirrored * mirrored.new_tensor([-1.0, *[1.0] * (spec.size - 1)]).view(1, -1, 1, 1)


KIND = Normals()

"""Numbers at every position, depth for example. Loss: smooth L1 of standardised values with its knee at 0.1: near the absolute
error, yet differentiable twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from graftwork.tasks.maps import MapKind
from graftwork.tasks.metrics import values
from graftwork.tasks.values import ValueKind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "RegressionPositions"]


class RegressionPositions(MapKind, ValueKind):
    """Targets ``[N, size, P]`` float32, NaN where missing; ``size`` standardised values a position; answers in the user's
    units."""

    name = "regression"
    words = "number for each position"
    metrics = (values.MAE, values.RMSE)
    aliases: ClassVar = {"dense_regression": "pixels"}

    def entry_losses(self, output: Tensor, wanted: Tensor, *, robust: bool) -> Tensor:
        """Return smooth L1."""
        from torch.nn import functional as F

        return F.smooth_l1_loss(output, wanted, reduction="none", beta=0.1)


KIND = RegressionPositions()

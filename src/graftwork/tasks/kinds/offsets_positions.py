"""A way across the picture at every position: to the centre of its body, or to where it moves. Learned as other numbers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from graftwork.core.records import TaskSpec
from graftwork.tasks.kinds.regression_positions import RegressionPositions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Offsets"]


class Offsets(RegressionPositions):
    """Targets ``[N, 2, P]`` float32, right and down, NaN where missing; 2 standardised values a position."""

    name = "offsets"
    words = "way across the picture for each position"
    aliases: ClassVar = {"dense_offsets": "pixels"}

    def mirror(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the flipped map, whose ways to the right are now ways to the left."""
        mirrored = target.flip(-1)
        # Only the way to the right changes its sign.
        return mirrored * mirrored.new_tensor([-1.0, *[1.0] * (spec.size - 1)]).view(1, -1, 1, 1)


KIND = Offsets()

"""Relational distillation: rows lie to each other as they do for the teacher.

Paper: Park et al., "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068. Distances and angles need no map
between the widths, and nothing is learned besides the student.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.taught import TappedStudent, at_least_0, rows_of
from graftwork.nn.distill_losses import angle_loss, distance_loss

__all__ = ["RelationalDistillation"]

_ANGLE_ROWS = 64
"""Rows of a batch between which angles are taken: their number is the cube of this."""


class RelationalDistillation(TappedStudent):
    """The differences of distances between pairs and of angles between triples of rows.

    Args:
        answers: See :class:`~graftwork.methods.distillation.taught.TappedStudent`.
        weight: Likewise.
        teacher_weights: Likewise.
        tap: Likewise.
        teacher_tap: Likewise.
        distance: Factor of the distances, at least 0; the paper takes 25 or 1.
        angle: Factor of the angles, at least 0; the paper takes 50 or 2. Angles are taken between the first 64 rows of a batch.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        answers: Sequence[str] = (),
        weight: float = 1.0,
        teacher_weights: Sequence[float] | None = None,
        *,
        tap: str = "",
        teacher_tap: str = "",
        distance: float = 1.0,
        angle: float = 2.0,
    ) -> None:
        super().__init__(answers, weight, teacher_weights, tap=tap, teacher_tap=teacher_tap)
        self.distance, self.angle = at_least_0("distance", distance), at_least_0("angle", angle)

    def made(self, binding: Binding) -> None:
        """Check that both sides have vectors.

        Raises:
            ConfigError: If one has none.
        """
        self.example_states(binding)
        for teacher in self.teachers:
            self.vectors(teacher)

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return distances and angles, each with its factor."""
        teacher = rows_of(self.vectors(self.teachers[number]), inputs.batch)
        total = self.distance * distance_loss(student, teacher)
        if self.angle > 0:
            total = total + self.angle * angle_loss(student[:_ANGLE_ROWS], teacher[:_ANGLE_ROWS])
        return total

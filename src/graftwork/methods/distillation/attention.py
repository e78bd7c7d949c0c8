"""Attention transfer: the student is active at the places where the teacher is.

Paper: Zagoruyko and Komodakis, "Paying More Attention to Attention", https://arxiv.org/abs/1612.03928. Needs no map between the
widths: channels are summed up on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.taught import TappedStudent, rows_of
from graftwork.nn.distill_losses import AttentionReduction, attention_loss, attention_map

__all__ = ["AttentionTransfer"]


class AttentionTransfer(TappedStudent):
    """The difference between attention maps of a tapped module of the student and one of the teacher.

    Args:
        answers: See :class:`~graftwork.methods.distillation.taught.TappedStudent`.
        weight: Likewise; the paper has values around 1000 for ``mean``.
        teacher_weights: Likewise.
        tap: Likewise; the module gives maps or tokens.
        teacher_tap: Likewise.
        reduction: ``mean`` is the authors' code, ``norm`` is the formula of the paper; see
            :func:`graftwork.nn.distill_losses.attention_loss`.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    def __init__(
        self,
        answers: Sequence[str] = (),
        weight: float = 1000.0,
        teacher_weights: Sequence[float] | None = None,
        *,
        tap: str = "",
        teacher_tap: str = "",
        reduction: AttentionReduction = "mean",
    ) -> None:
        super().__init__(answers, weight, teacher_weights, tap=tap, teacher_tap=teacher_tap)
        if reduction not in get_args(AttentionReduction):
            raise ConfigError(f"reduction must be one of {', '.join(get_args(AttentionReduction))}; got {reduction!r}.")
        self.reduction = reduction

    def made(self, binding: Binding) -> None:
        """Check that both sides have places.

        Raises:
            ConfigError: If one has none.
        """
        attention_map(self.example_states(binding))
        for teacher in self.teachers:
            if self.teacher_tap not in teacher.maps:
                known = ", ".join(repr(name) for name in teacher.maps) or "none"
                raise ConfigError(
                    f"The stored answers of {teacher.name} hold no map of its module {self.teacher_tap!r}; modules with maps: "
                    f"{known}."
                )

    def compared(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the student's attention maps, ``[B, H, W]``."""
        return attention_map(self.states(inputs))

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return the difference of the maps."""
        teacher = rows_of(self.teachers[number].maps[self.teacher_tap], inputs.batch)
        return attention_loss(student, teacher, reduction=self.reduction)

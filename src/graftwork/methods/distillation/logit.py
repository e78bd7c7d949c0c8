"""Logit distillation: the student predicts what the teacher predicts, wrong classes included.

Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531. The paper weighs labels
and teacher by ``1 - w`` and ``w``; here the term comes beside the task's loss with the factor ``weight``, which is the same up to
the size of the whole loss for ``weight = w / (1 - w)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.taught import Taught, answered_tasks, rows_of
from graftwork.nn.distill_losses import softened_divergence

__all__ = ["LogitDistillation"]


class LogitDistillation(Taught):
    """The divergence between softened outputs of teacher and student, summed over the tasks that the teacher answers.

    Rows without labels count like all others.

    Args:
        answers: See :class:`~graftwork.methods.distillation.taught.Taught`.
        weight: Likewise.
        teacher_weights: Likewise.
        temperature: Above 0; both outputs are divided by it, and the term is multiplied by its square.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        answers: Sequence[str] = (),
        weight: float = 1.0,
        teacher_weights: Sequence[float] | None = None,
        *,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(answers, weight, teacher_weights)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"temperature must be a number above 0; got {temperature!r}.")
        self.temperature = float(temperature)
        self._tasks: tuple[TaskSpec, ...] = ()

    def made(self, binding: Binding) -> None:
        """Check that each teacher answers a task, in the layout of the student.

        Raises:
            ConfigError: If one answers none, or in another layout.
        """
        self._tasks = tuple(binding.tasks)
        for teacher in self.teachers:
            answered_tasks(teacher, self._tasks)

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return the sum over the teacher's tasks."""
        outputs, total = self.teachers[number].outputs, inputs.losses.new_zeros(())
        for task in self._tasks:
            if task.name in outputs:
                reference = rows_of(outputs[task.name], inputs.batch)
                total = total + softened_divergence(task, reference, inputs.outputs[task.name], self.temperature)
        return total

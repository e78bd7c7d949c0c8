r"""KL distillation with data partitioning: what another model knows, without losing what the student knows.

Paper: Roth et al., "Fantastic Gains and Where to Find Them: On the Existence and Prospect of General Knowledge Transfer between
Any Pretrained Model", ICLR 2024, https://arxiv.org/abs/2310.17653. The student is trained already. Each row is distilled either
from the teacher or from a frozen copy of the student as it was before the transfer, whichever is surer of the label (or, without
labels, surer of its own answer):
:math:`\frac1n \sum_i m_i \, T^2 \mathrm{KL}(p_t \Vert p_s) + (1 - m_i) \, T^2 \mathrm{KL}(p_{s_0} \Vert p_s)`. Of several
teachers the surest one counts. Labels teach nothing besides: in the plan on the card the tasks' losses have the weight 0.

The frozen copy is the student at the first step. So the plan begins with the weights of a trained student, as a start that is
handed in or as a pretrained backbone; from random weights there is nothing to keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.task_kind import task_kind
from graftwork.methods.distillation.taught import Taught, answered_tasks, rows_of
from graftwork.nn.distill_losses import softened_divergence

__all__ = ["PartitionedDistillation", "surest"]

Mask = Literal["labels", "confidence"]


def surest(spec: TaskSpec, outputs: Sequence[Tensor], target: Tensor | None) -> Tensor:
    """Return for each row which of several models is surest, int64 ``[B]``; of equally sure ones the first.

    Args:
        spec: The task.
        outputs: Raw outputs of each model, ``[B, num_outputs]``; the student's copy first.
        target: Labels ``[B]``, -1 where there is none; None asks nobody for labels. A model is as sure as the probability that it
            gives to the label, or to its own answer.
    """
    sure = []
    for output in outputs:
        probabilities = task_kind(spec).class_probabilities(spec, output)
        own = probabilities.amax(dim=1)
        if target is not None:
            labelled = probabilities.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
            own = torch.where(target >= 0, labelled, own)
        sure.append(own)
    # argmax gives the first of equals: the teacher must be surer than the copy.
    return torch.stack(sure).argmax(dim=0)


class PartitionedDistillation(Taught):
    """Distils each row from the surest of the teachers and the student's own frozen copy.

    Args:
        answers: See :class:`~graftwork.methods.distillation.taught.Taught`; each holds outputs for the tasks.
        weight: Likewise.
        mask: ``labels`` compares the probabilities of the label where there is one, ``confidence`` those of the models' own
            answers.
        temperature: Above 0.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    def __init__(
        self, answers: Sequence[str] = (), weight: float = 1.0, *, mask: Mask = "labels", temperature: float = 1.0
    ) -> None:
        super().__init__(answers, weight)
        if mask not in get_args(Mask):
            raise ConfigError(f"mask must be one of {', '.join(get_args(Mask))}; got {mask!r}.")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"temperature must be a number above 0; got {temperature!r}.")
        self.mask, self.temperature = mask, float(temperature)
        self._tasks: tuple[TaskSpec, ...] = ()

    def made(self, binding: Binding) -> None:
        """Keep the student as it is now.

        Raises:
            ConfigError: If a task is not of classes, or a teacher answers none.
        """
        self._tasks = tuple(binding.tasks)
        for task in self._tasks:
            try:
                task_kind(task).class_probabilities(task, torch.zeros(1, task.num_outputs))
            except ConfigError as error:
                raise ConfigError(f"Data partitioning compares how sure models are of a class. {error}") from error
        for teacher in self.teachers:
            answered_tasks(teacher, self._tasks)
        self.module = _Copy(binding.model)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the sum over tasks of the divergence from the surest model of each row."""
        assert isinstance(self.module, _Copy), "bind comes first"
        before, total = self.module.outputs(inputs.model, inputs.batch.inputs), inputs.losses.new_zeros(())
        for task in self._tasks:
            known = [
                rows_of(teacher.outputs[task.name], inputs.batch) for teacher in self.teachers if task.name in teacher.outputs
            ]
            models = [before[task.name], *known]
            target = inputs.batch.targets[task.name] if self.mask == "labels" else None
            chosen = surest(task, models, target)
            # One reference a row: the mean over rows of masked divergences is the divergence from the mixture of references.
            index = chosen.view(1, -1, 1).expand(1, -1, models[0].shape[1])
            reference = torch.stack(models).gather(0, index).squeeze(0)
            total = total + softened_divergence(task, reference, inputs.outputs[task.name], self.temperature)
        return self.weight * total

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return nothing: teachers are compared with each other, not summed up."""
        return inputs.losses.new_zeros(())


class _Copy(nn.Module):
    """The weights of a model as they are now, with which the model itself computes. They are no part of a checkpoint: a training
    that goes on begins with the same ones."""

    def __init__(self, model: SharedModel) -> None:
        super().__init__()
        # Tied weights have several names and are one tensor, here as there.
        numbers: dict[int, int] = {}
        self._numbers: dict[str, int] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            number = self._numbers[name] = numbers.setdefault(id(tensor), len(numbers))
            if number == len(self._buffers):
                self.register_buffer(f"tensor{number}", tensor.detach().clone(), persistent=False)

    @torch.no_grad()
    def outputs(self, model: SharedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the raw outputs of the copy, in evaluation mode; modes of the model are as before."""
        state = {name: self.get_buffer(f"tensor{number}") for name, number in self._numbers.items()}
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            found: dict[str, Tensor] = torch.func.functional_call(model, state, (inputs,))
            model.pop_auxiliary_loss()  # of this pass; training has taken its own
        finally:
            for module, mode in modes:
                module.training = mode
        return found

"""The step of methods that learn classes in groups: the task's loss over the current classes, and the model's own extra loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import TrainStep
from graftwork.nn.growing_head import only_classes
from graftwork.tasks.losses import task_loss

__all__ = ["ClassStep", "class_task", "class_trainer"]


def class_task(tasks: Sequence[TaskSpec], method: str) -> TaskSpec:
    """Return the one task of a stream of classes.

    Raises:
        ConfigError: If there is another number of tasks, or it is neither multiclass nor multilabel.
    """
    if len(tasks) != 1 or tasks[0].kind not in ("multiclass", "multilabel") or tasks[0].is_dense:
        shown = ", ".join(f"{task.name} ({task.kind})" for task in tasks)
        raise ConfigError(f"{method} learns the classes of one multiclass or multilabel task; got {shown or 'none'}.")
    return tasks[0]


class ClassStep(TrainStep[Batch]):
    """Loss of one task over some of its classes.

    Logits of all other classes are constant, so that neither softmax nor binary cross-entropy moves them; of a multilabel task
    the mean is over the labels that are known.

    Args:
        model: The model; its auxiliary loss is added.
        task: A multiclass or multilabel task.
        classes: Classes that are learned now.
    """

    model: SharedModel

    def __init__(self, model: SharedModel, task: TaskSpec, classes: Sequence[int]) -> None:
        self.model, self.task, self.classes = model, task, tuple(classes)
        self.loss_names = (task.name,)

    def backward(self, batch: Batch, step: int) -> Tensor:
        """Write gradients; return the task's loss, ``[1]``."""
        outputs = self.model(batch.inputs)
        loss = task_loss(self.task, only_classes(outputs[self.task.name], self.classes), batch.targets[self.task.name])
        # Popped in every step, or the term of an earlier batch would be added to a later one.
        extra = self.model.pop_auxiliary_loss()
        (loss if extra is None else loss + extra).backward()
        return torch.stack([loss.detach()])


def class_trainer(model: SharedModel, task: TaskSpec, experience: Experience) -> ClassStep:
    """Return the step that learns the classes of an experience."""
    return ClassStep(model, task, experience.classes[task.name])

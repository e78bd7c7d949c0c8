"""A classifier that grows on the features of a backbone: alone, as the usual baseline that forgets nothing, or with the backbone
learning as well, which forgets, and is the upper bound where all classes come at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import TrainStep
from graftwork.methods.continual.class_step import class_task, class_trainer
from graftwork.nn.freeze import fix_mode
from graftwork.nn.growing_head import GrowingHead

__all__ = ["ClassHead"]


class _Network(SharedModel):
    def __init__(self, task: TaskSpec, backbone: Backbone, tune_backbone: bool) -> None:
        super().__init__()
        if backbone.feature_shape.layout != "vector":
            raise ConfigError(
                f"A classifier alone reads vectors, and the features of {type(backbone).__name__} are "
                f"{backbone.feature_shape.layout}. Choose a backbone that gives vectors."
            )
        self.task_names = (task.name,)
        self.backbone, self._tune_backbone = backbone, tune_backbone
        self.head = GrowingHead(backbone.feature_shape.width, task.size)
        if not tune_backbone:
            backbone.requires_grad_(False)
            fix_mode(backbone)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the features, of length 1, ``[B, width]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tune_backbone):
            features = self.backbone(inputs)
        return F.normalize(features, dim=-1)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the logits."""
        assert isinstance(representation, Tensor)
        logits = self.head(representation)
        return dict.fromkeys(self.task_names if tasks is None else tasks, logits)

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the classifier."""
        return self.head.parameters()


class ClassHead(ContinualMethod):
    """Rows of a classifier, learned experience by experience.

    Args:
        tasks: The one task, multiclass or multilabel.
        backbone: A pretrained backbone whose features are vectors.
        tune_backbone: Whether the backbone learns as well.

    Raises:
        ConfigError: If the task or the features are of another kind.
    """

    def __init__(self, tasks: Sequence[TaskSpec], backbone: Backbone, *, tune_backbone: bool = False) -> None:
        self.task = class_task(tasks, "A growing classifier")
        self._network = _Network(self.task, backbone, tune_backbone)
        self.model = self._network

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        """Add the rows of the experience's classes."""
        self._network.head.grow(experience.classes[self.task.name])
        return class_trainer(self.model, self.task, experience)

"""Backbones and the linear models behind them as one network, for the graph that is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.records import TaskSpec
from graftwork.domains.joined.feature_scores import FeatureScores
from graftwork.interfaces.shared_model import SharedModel
from graftwork.training.assembly import Front

__all__ = ["ScoredFeatures"]


class ScoredFeatures(SharedModel):
    """Scores of all backbones side by side.

    Args:
        fronts: Backbones and the inputs that they read.
        scores: The linear models of each.
    """

    name = "scores"
    """What its only output is called."""

    def __init__(self, fronts: Sequence[Front], scores: Sequence[FeatureScores]) -> None:
        super().__init__()
        self.task_names = (self.name,)
        self._specs = [front.spec for front in fronts]
        self.backbones = nn.ModuleList(front.backbone for front in fronts)
        self.maps = nn.ModuleList(_linear(one) for one in scores)
        self._width = sum(one.weights.shape[1] for one in scores)

    def task(self) -> TaskSpec:
        """Return the output as a task: plain numbers."""
        return TaskSpec(name=self.name, kind="regression", size=self._width)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the scores, ``[B, K]``."""
        parts = zip(self.backbones, self._specs, self.maps, strict=True)
        return torch.cat([scores(backbone(spec.own(inputs))) for backbone, spec, scores in parts], dim=1)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the scores by name."""
        assert isinstance(representation, Tensor)
        return {self.name: representation}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield nothing: all of it belongs to all tasks."""
        return iter(())


def _linear(scores: FeatureScores) -> nn.Linear:
    layer = nn.Linear(*scores.weights.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(scores.weights.T.copy()))
        layer.bias.copy_(torch.from_numpy(scores.intercepts))
    return layer

"""A tiny backbone and tasks for tests of sharing operators."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape

TASKS = (
    TaskSpec(name="first", kind="binary", size=1),
    TaskSpec(name="second", kind="regression", size=2),
    TaskSpec(name="third", kind="multiclass", size=3),
)
SIZES = table_input(3)


class LinearBackbone(Backbone):
    """``numeric`` ``[B, 3]`` to 4 features, which it counts the calls of."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", 4)
        self.layer = nn.Linear(3, 4)
        self.calls = 0

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.calls += 1
        return self.layer(inputs["numeric"])


class MapBackbone(Backbone):
    """``numeric`` ``[B, 3]`` to a map ``[B, 4, 2, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("map", 4, (2, 3))
        self.layer = nn.Linear(3, 24)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.layer(inputs["numeric"]).view(-1, 4, 2, 3)


def rows(count: int) -> dict[str, Tensor]:
    return {"numeric": torch.randn(count, 3, generator=torch.Generator().manual_seed(0))}

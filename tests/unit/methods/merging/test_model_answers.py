"""What of a network belongs to one task: heads, trunks of a single task, and the running statistics inside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.fisher_merging import FisherConfig, FisherMerging
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.sharing.grouped import Grouped

FIRST, SECOND, THIRD, FOURTH = (TaskSpec(name=name, kind="binary", size=1) for name in ("first", "second", "third", "fourth"))


class Normed(Backbone):
    """A linear layer and BatchNorm; the statistics of its input stand outside any layer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", 3)
        self.layer, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.norm(self.layer(inputs["numeric"] - self.mean))  # type: ignore[no-any-return]


def model_of(seed: int, last: TaskSpec) -> MergeModel:
    """Its first trunk belongs to the task ``first``, the other one to two tasks."""
    tasks = (FIRST, SECOND, last)
    random = np.random.default_rng(seed)

    def build() -> Grouped:
        return Grouped(tasks, Normed, inputs={}, groups=[["first"], ["second", last.name]], head_hidden=0)

    tensors: dict[str, Any] = {
        name: random.random(tuple(value.shape)).astype(np.float32) if value.is_floating_point() else value.numpy()
        for name, value in build().state_dict().items()
    }

    def network() -> nn.Module:
        made = build()
        made.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
        return made

    return MergeModel(name=f"m{seed}", tensors=tensors, network=network)


def test_statistics_in_the_trunk_of_a_task_belong_to_it_and_those_of_a_shared_trunk_do_not() -> None:
    owned = Answering(model_of(0, THIRD), (FIRST, SECOND, THIRD)).owned()
    trunks = {name for name in owned if name.startswith("backbones.")}
    parts = ("layer.weight", "layer.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert trunks == {f"backbones.0.{name}" for name in (*parts, "norm.num_batches_tracked", "mean")}
    assert len(owned) == len(set(owned))


def test_a_trunk_of_one_task_keeps_its_statistics_with_its_weights_in_a_merge() -> None:
    target, donor = model_of(0, THIRD), model_of(1, FOURTH)
    rule = FisherMerging(FisherConfig(information="none"))
    merged = rule.merge(None, [target, donor], MergeContext(tasks=(FIRST, SECOND, THIRD, FOURTH)))
    for name, values in merged.items():
        if name.endswith("num_batches_tracked"):
            continue
        kept = not name.startswith("backbones.1.")
        assert np.array_equal(values, target.tensors[name]) == kept, name

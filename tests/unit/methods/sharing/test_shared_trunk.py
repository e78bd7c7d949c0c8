from __future__ import annotations

import torch
from sharing_models import SIZES, TASKS, LinearBackbone

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cnn import ConvBackbone


def test_all_heads_read_one_backbone() -> None:
    made: list[LinearBackbone] = []

    def make() -> LinearBackbone:
        made.append(LinearBackbone())
        return made[-1]

    model = SharedTrunk(TASKS, make, inputs=SIZES, head_hidden=0)
    assert len(made) == 1
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in made[0].parameters()}


def test_dense_and_global_tasks_share_a_map() -> None:
    tasks = (TaskSpec(name="depth", kind="dense_regression", size=1), TaskSpec(name="scene", kind="multiclass", size=3))
    model = SharedTrunk(tasks, lambda: ConvBackbone(32, feature_map=True), inputs=image_input(32))
    outputs = model({"image": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)})
    assert outputs["depth"].shape == (2, 1, 32, 32)
    assert outputs["scene"].shape == (2, 3)

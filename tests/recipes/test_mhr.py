from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.methods.tuning.mhr_tasks import MultiHeadRouting
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.recipes.tuning.mhr import ARMS, HELD_OUT, INVENTORIES, TRAINED, alignment, pretraining_plan, tuning_plan


def test_inventories_have_equal_numbers_and_one_scaling() -> None:
    sizes = set()
    for kind in INVENTORIES:
        settings = pretraining_plan(kind).train.sharing.settings
        sizes.add(settings["skills"] * settings["r"])
        assert settings["lora_alpha"] / settings["r"] == 2.0
    assert sizes == {32}
    assert not set(HELD_OUT) & set(TRAINED)


def test_every_arm_begins_from_its_modules_or_is_a_new_lora() -> None:
    for arm in ARMS:
        files = [Path("a"), Path("b")] if arm.settings["inventory"] else []
        tuning = tuning_plan(str(arm.settings["plan"]), files).train.tuning
        assert tuning is not None
        if files:
            assert tuning.settings["inventory"] == ["a", "b"]
        else:
            assert tuning.path.endswith(":LoRA")
            assert tuning.settings == {"r": 32, "lora_alpha": 64.0}


@pytest.mark.parametrize(("same", "expected"), [(True, 1.0), (False, -1.0)])
def test_equal_tasks_are_aligned_and_opposite_ones_are_not(same: bool, expected: float) -> None:
    """Both tasks have the same pictures and head; their labels are equal or opposite."""
    torch.manual_seed(0)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    suite = Suite.of_arrays(
        name="two",
        input_specs=image_input(16),
        tasks=[TaskSpec(name=name, kind="binary", size=1) for name in ("a", "b")],
        inputs={"image": pictures},
        targets={"a": np.ones(8, dtype=np.int64), "b": np.ones(8, dtype=np.int64) if same else np.zeros(8, dtype=np.int64)},
        splits={"train": np.arange(8), "val": np.zeros(0, np.int64), "test": np.zeros(0, np.int64)},
    )
    model = MultiHeadRouting(
        suite.tasks,
        lambda: ViTBackbone(16, patch=8, width=8, depth=1, num_heads=2),
        inputs=suite.input_specs,
        skills=1,
        r=2,
        heads=1,
        head_hidden=0,
    )
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    assert alignment(model.eval(), suite, 8) == pytest.approx(expected, abs=1e-3)

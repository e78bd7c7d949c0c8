"""What the arms of ScaleKD train, and what they teach with."""

from __future__ import annotations

import numpy as np
import torch

from graftwork.nn.backbones.catalog import build_backbone
from graftwork.recipes.distillation.scalekd import RECIPE, STUDENTS, UPPER, FirstBlocks, emoji_drawings, student_plan


def test_the_large_teacher_begins_as_vit_mini_and_the_small_one_as_its_first_blocks() -> None:
    pictures = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    with torch.inference_mode():
        whole, shipped = FirstBlocks(10).eval(), build_backbone("vit-mini@32").eval()
        torch.testing.assert_close(whole(pictures), shipped(pictures))
        small = FirstBlocks(4).eval()
        states = small.embed(pictures)
        for number in range(4):
            torch.testing.assert_close(small.run_block(number, states, pictures), whole.run_block(number, states, pictures))
            states = small.run_block(number, states, pictures)


def test_students_are_small_and_have_the_named_maps() -> None:
    pictures = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    for name, component in STUDENTS.items():
        torch.manual_seed(0)
        student = component.build()
        assert 5e4 < sum(parameter.numel() for parameter in student.parameters()) < 3e5
        assert bool(student(pictures).isfinite().all())
        assert UPPER[name].removeprefix("backbone.") in dict(student.named_modules())
        assert student_plan(name, (), 1e-3).train.backbone == component


def test_all_arms_learn_at_the_same_settings_until_the_pilot() -> None:
    assert {arm.settings["rate"] for arm in RECIPE.arms} == {2e-3}
    assert [arm.name for arm in RECIPE.arms if arm.settings["teacher"] == "small"] == ["scalekd-small", "teacher-small"]


def test_drawings_fill_a_part_of_the_picture() -> None:
    suite = emoji_drawings(0, num_train=12, num_val=2, num_test=2, classes=5)
    again = emoji_drawings(0, num_train=12, num_val=2, num_test=2, classes=5)
    np.testing.assert_array_equal(suite.inputs["image"], again.inputs["image"])
    assert suite.inputs["image"].shape == (16, 32, 32, 3)
    assert set(np.unique(suite.targets["drawing"])) <= set(range(5))
    assert suite.inputs["image"].reshape(16, -1).astype(float).std(axis=1).min() > 20

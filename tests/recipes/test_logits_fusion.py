"""What the recipe of dynamic logits fusion measures."""

from __future__ import annotations

import pytest

from graftwork.recipes.merging.logits_fusion import RECIPE, TASKS, derive, vocabulary_of
from graftwork.recipes.merging.text_experts import text_tasks


def test_all_tasks_share_one_vocabulary() -> None:
    suite = text_tasks(0, tasks=TASKS, most=12)
    names, places = vocabulary_of(suite)
    assert len(names) == len(set(names)) == 29
    for task in suite.tasks:
        assert [names[place] for place in places[task.name]] == list(task.classes)


def test_the_share_of_the_gap_is_that_between_the_large_models() -> None:
    scores = {"large": 40.0, "large-tuned": 80.0, "dynamic": 64.0, "dynamic-all": 40.0, "fixed-tuned": 84.0}
    found = derive({name: {"accuracy": value} for name, value in scores.items()})
    assert {name: values["closed"] for name, values in found.items()} == pytest.approx(
        {"dynamic": 60.0, "dynamic-all": 0.0, "fixed-tuned": 110.0}
    )


def test_arms_that_fuse_take_the_experts_of_the_expert_arm() -> None:
    assert RECIPE.pilot is not None
    assert set(RECIPE.pilot.follows.values()) == {"expert"}
    assert {arm.settings["rate"] for arm in RECIPE.arms} == {1e-4}

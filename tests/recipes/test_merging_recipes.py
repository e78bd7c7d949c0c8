"""The recipes of merging that share tuned text models: what their suite hands out, and that no label reaches a merger that needs none."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.claims.experiment import Recipe
from graftwork.data.suite import Suite
from graftwork.recipes.merging import atlas, concrete_merging
from graftwork.recipes.merging.text_experts import TASKS, base_state, labelled, merge_context, text_tasks, trunk_of


@pytest.fixture(scope="module")
def suite() -> Suite:
    return text_tasks(0, most=20)


def test_every_row_is_labelled_for_one_task(suite: Suite) -> None:
    assert suite.task_names == TASKS
    known = np.stack([suite.targets[name] >= 0 for name in TASKS])
    for split, rows in suite.splits.items():
        assert (known[:, rows].sum(axis=0) == 1).all()
        assert suite.domain is not None
        np.testing.assert_array_equal(known[:, rows].argmax(axis=0), suite.domain[rows])
        assert all(len(labelled(suite, split, name)) == 20 for name in TASKS)
        assert all(len(np.unique(suite.targets[name][labelled(suite, split, name)])) > 2 for name in TASKS)
    assert not set(suite.splits["train"]) & set(suite.splits["test"])
    assert suite.inputs["token_ids"].shape[1] <= 16


def test_a_merger_without_labels_sees_which_task_a_row_is_of_and_nothing_else(suite: Suite) -> None:
    context = merge_context(suite, suite.splits["val"], 0, labels=False)
    for batch in context.batches("val", 64):
        for name in TASKS:
            assert bool((batch.targets[name][batch.mask[name]] == 0).all())
    assert {task.name for task in merge_context(suite, suite.splits["val"], 0, tasks=suite.tasks[:2]).tasks} == set(TASKS[:2])


def test_the_upper_layers_are_tuned_and_the_others_shared() -> None:
    names, trunk = set(base_state()), trunk_of()
    assert len(names) == 48
    assert {f"backbone.{name}" for name, parameter in trunk.named_parameters() if parameter.requires_grad} == names
    other = trunk_of()
    for (name, first), second in zip(trunk.named_parameters(), other.parameters(), strict=True):
        assert (first is second) == (f"backbone.{name}" not in names)


def test_four_shots_are_the_same_for_all_arms(suite: Suite) -> None:
    whole = text_tasks(0)
    task = whole.task("nouns")
    rows = atlas.few_shots(whole, task, 3)
    np.testing.assert_array_equal(rows, atlas.few_shots(whole, task, 3))
    assert np.bincount(whole.targets["nouns"][rows]).tolist() == [4] * 6
    assert set(rows) <= set(labelled(whole, "train", "nouns"))
    assert not np.array_equal(rows, atlas.few_shots(whole, task, 4))


@pytest.mark.parametrize("recipe", [atlas.RECIPE, concrete_merging.RECIPE], ids=lambda recipe: recipe.slug)
def test_grids_are_equal_and_hold_what_the_arms_have(recipe: Recipe) -> None:
    assert recipe.pilot is not None
    assert len({len(recipe.pilot.trials(arm)) for arm in recipe.pilot.grids}) == 1
    for arm, grid in recipe.pilot.grids.items():
        for name, values in grid.items():
            assert recipe.arm(arm).settings[name] in values
    assert {name for item in recipe.headroom for name in item.inequalities} <= {item.name for item in recipe.inequalities}


def test_adamerging_gets_what_a_mask_with_adamerging_takes() -> None:
    budgets = [set(budget.arms) for budget in concrete_merging.RECIPE.equal_budget if "samples" in budget.counters]
    assert {"adamerging", "concrete-adamerging"} in budgets
    assert {"concrete", "shuffled"} in budgets

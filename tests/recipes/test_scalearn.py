from __future__ import annotations

from pathlib import Path

import numpy as np

from graftwork.claims.plan_arms import card_plan
from graftwork.core.input_spec import text_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.recipes.tuning.scalearn import ARMS, BOTTLENECK, RECIPE, TASKS, adapter_plan, few_labels, transfer_plan


def world() -> Suite:
    return Suite.of_arrays(
        name="texts",
        input_specs=text_input(2, 1),
        tasks=[TaskSpec(name="kind", kind="multiclass", size=2)],
        inputs={"tokens": np.ones((20, 1), np.int64)},
        targets={"kind": np.arange(20) % 2},
        splits={"train": np.arange(10), "val": np.arange(10, 14), "test": np.arange(14, 20)},
    )


def test_few_labels_are_a_draw_of_the_training_rows_and_leave_the_test_alone() -> None:
    few, other = (few_labels(world(), {"train": 4}, seed) for seed in (0, 1))
    assert len(few.splits["train"]) == 4
    assert set(few.splits["train"]) <= set(range(10))
    assert list(few.splits["train"]) != list(other.splits["train"])
    assert list(few.splits["test"]) == list(world().splits["test"])
    assert list(few_labels(world(), {}, 0).splits["train"]) == list(range(10))


def test_arms_are_plans_of_the_card_with_the_files_of_the_sources() -> None:
    for arm in ARMS:
        kind = str(arm.settings["kind"])
        if kind in ("single", "bound"):
            continue
        plan, card = transfer_plan(kind, [Path("a"), Path("b")]), card_plan("scalearn", kind)
        assert plan.train.tuning is not None
        assert card.train.tuning is not None
        assert plan.train.tuning.path == card.train.tuning.path
        assert plan.train.tuning.settings == {**card.train.tuning.settings, "deltas": ["a", "b"]}
    tuning = adapter_plan().train.tuning
    assert tuning is not None
    assert tuning.settings == {"bottleneck": BOTTLENECK}


def test_eight_tasks_and_grids_of_equal_size() -> None:
    assert len(TASKS) == 8
    assert RECIPE.pilot is not None
    assert {len(RECIPE.pilot.trials(arm)) for arm in RECIPE.pilot.grids} == {4}

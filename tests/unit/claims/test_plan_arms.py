from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.claims import plan_arms
from graftwork.claims.arm_context import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.core.errors import AccessError, ConfigError
from graftwork.core.records import Component, Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.suites.generated import conflicting_tasks

SHARED = Plan(
    name="shared-trunk",
    title="shared trunk",
    role="joint",
    modalities=("table",),
)
TREES = Plan(
    name="trees",
    title="trees",
    role="independent",
    modalities=("table",),
    stages=(TrainStage(learner=Component("graftwork.domains.tabular.lightgbm:LightGBMLearner")),),
)


def context(folder: Path, *access: str) -> ArmContext:
    return ArmContext(
        slug="toy", arm="mine", access=frozenset(access), seed=3, smoke=True, work=folder / "work", shared=folder / "shared"
    )


@pytest.mark.parametrize("plan", [SHARED, TREES], ids=lambda plan: plan.name)
def test_an_arm_trains_the_plan_that_users_race(plan: Plan, tmp_path: Path) -> None:
    arm = context(tmp_path, "source_labels")
    data = arm.guard(conflicting_tasks(rows=200, seed=1))
    learner = arm.train(plan, data, steps=6)
    assert learner.step == 6
    assert arm.counts["steps"] == 6
    assert arm.counts["samples"] > 0
    predictions = arm.predict(learner, data)
    scores = data.score("test", predictions)
    assert set(scores) == set(data.visible.task_names)
    again = context(tmp_path / "again", "source_labels")
    other = again.predict(again.train(plan, again.guard(conflicting_tasks(rows=200, seed=1)), steps=6), data)
    assert all(np.array_equal(predictions[name], other[name]) for name in predictions), "equal seeds give equal numbers"


def test_the_loss_of_a_plan_is_kept_for_the_smoke_numbers(tmp_path: Path) -> None:
    arm = context(tmp_path, "source_labels")
    arm.train(SHARED, arm.guard(conflicting_tasks(rows=200, seed=1)), steps=3)
    assert arm.training_loss is not None


def test_an_arm_sees_no_test_labels(tmp_path: Path) -> None:
    arm = context(tmp_path, "source_labels")
    data = arm.guard(conflicting_tasks(rows=200, seed=1))
    learner = arm.train(SHARED, data, steps=1)
    with pytest.raises(AccessError):
        learner.context.suite.splits["test"]


def test_plans_of_cards_by_name() -> None:
    assert card_plan("rep-mtl").name == "rep-mtl"
    assert card_plan("rep-mtl").system == "rep-mtl"
    with pytest.raises(ConfigError, match="no plan 'nothing'; its plans are rep-mtl"):
        card_plan("rep-mtl", "nothing")
    with pytest.raises(ConfigError, match="There is no system"):
        card_plan("rep-mlt")


@pytest.mark.parametrize("plan", [SHARED, TREES], ids=lambda plan: plan.name)
def test_a_source_is_trained_once_and_charged_to_every_arm(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    original = plan_arms.train_plan

    def counting(arm: ArmContext, *arguments: Any, **settings: Any) -> Any:
        trained.append(arm.arm)
        return original(arm, *arguments, **settings)

    monkeypatch.setattr(plan_arms, "train_plan", counting)
    first, second, world = (
        context(tmp_path, "source_labels"),
        context(tmp_path, "source_labels"),
        conflicting_tasks(rows=200, seed=1),
    )
    data = first.guard(world)
    teacher = first.source("teacher", plan, world, steps=6)
    same = second.source("teacher", plan, world, steps=6)
    assert len(trained) == 1
    assert first.counts == second.counts
    assert first.counts["steps"] == 6
    assert first.training_loss == second.training_loss
    data = first.guard(world)
    one, two = first.predict(teacher, data), second.predict(same, data)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    other = first.predict(first.source("other", plan, world, steps=6), data)
    assert len(trained) == 2
    if plan is SHARED:  # trees draw nothing at random
        assert not all(np.array_equal(one[name], other[name]) for name in one), "a source of another name has another seed"
    with pytest.raises(AccessError, match="which was made with source labels"):
        context(tmp_path).source("teacher", plan, world, steps=6)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.core.errors import AccessError
from graftwork.recipes.adaptation.dann import (
    ARMS,
    RATES,
    RECIPE,
    ROWS,
    TRAINING,
    WORLDS,
    FeatureMatching,
    derive,
    make_plan,
    make_world,
    run_arm,
)
from graftwork.training.learner import NeuralLearner


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="dann",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_the_system_is_the_plan_on_the_card() -> None:
    plan, mine = card_plan("dann"), make_plan("dann", 1.0, ("plain", "textured"), 64)
    assert [part.path for part in mine.train.objectives] == [part.path for part in plan.train.objectives]
    assert mine.train.training == plan.train.training
    assert make_plan("source", 0.0, ("plain", "textured"), 8).train.objectives == ()


@pytest.mark.parametrize("world", WORLDS)
def test_every_arm_has_its_rate_and_strength_zero_that_of_source_only(world: str) -> None:
    assert set(RATES[world]) == {arm.name for arm in ARMS}
    assert RATES[world]["zero"] == RATES[world]["source"]


def test_arms_see_as_many_labelled_rows_a_step_and_only_the_bound_sees_labels_of_the_target() -> None:
    for arm in ARMS:
        quotas = make_plan(str(arm.settings["kind"]), 1.0, ("plain", "textured"), ROWS["digits"]).train.training["quotas"]
        labelled = [quota for quota in quotas if quota["role"] == "labelled"]
        assert [quota["rows"] for quota in labelled] == [ROWS["digits"]]
        assert ("unlabelled" in [quota["role"] for quota in quotas]) == (arm.settings["kind"] in ("dann", "matching"))
        assert arm.access.target_labels == (arm.name == "target")
        assert arm.access.target_inputs == (arm.name != "source")


@pytest.mark.parametrize("world", WORLDS)
def test_an_adapting_arm_sees_target_rows_without_labels(world: str, tmp_path: Path) -> None:
    if world == "digits":
        pytest.importorskip("PIL.Image")
    suite = make_world(world, 0, make_context("dann", tmp_path))
    task = suite.task_names[0]
    seen = make_context("dann", tmp_path).guard(suite).for_training()
    assert set(suite.splits["target"]) <= set(seen.splits["train"])
    assert bool((seen.targets[task][suite.splits["target"]] == -1).all())
    source = make_context("source", tmp_path).guard(suite)
    assert set(source.for_training().splits["train"]) == set(suite.splits["train"])
    with pytest.raises(AccessError):
        source.visible.splits["target"]
    bound = make_context("target", tmp_path).guard(suite).for_training()
    np.testing.assert_array_equal(bound.targets[task][suite.splits["target"]], suite.targets[task][suite.splits["target"]])


@pytest.mark.parametrize("world", WORLDS)
def test_strength_zero_trains_the_network_of_source_only_training(world: str, tmp_path: Path) -> None:
    """Clipping, dropout and norms: nothing that the rows without labels or the classifier bring may reach the network."""
    if world == "digits":
        pytest.importorskip("PIL.Image")
    found = []
    for name in ("source", "zero"):
        context = make_context(name, tmp_path)
        suite = make_world(world, 0, context)
        plan = make_plan(str(RECIPE.arm(name).settings["kind"]), 0.0, suite.domains, 8)
        overrides = {**TRAINING[world], "learning_rate": RATES[world][name], "grad_clip": 1e-2}
        learner = context.train(plan, context.guard(suite), steps=5, overrides=overrides)
        assert isinstance(learner, NeuralLearner)
        found.append(list(learner.trainer.model.parameters()))
    for source, zero in zip(*found, strict=True):
        torch.testing.assert_close(source, zero, rtol=1e-4, atol=1e-6)  # sums over other numbers of rows round differently


def test_the_share_of_the_gap_is_counted_from_source_only_to_the_bound() -> None:
    results = {
        name: {"digits.target": digits, "moons.target": moons}
        for name, digits, moons in (("source", 40.0, 80.0), ("dann", 60.0, 75.0), ("target", 80.0, 100.0))
    }
    found = derive(results)
    assert found["dann"] == {"closed": {"digits": 50.0, "moons": -25.0}}
    assert found["source"]["closed"]["digits"] == 0.0
    assert found["target"]["closed"]["moons"] == 100.0


def test_feature_matching_ramps_up_over_the_horizon(tmp_path: Path) -> None:
    context = make_context("matching", tmp_path)
    suite = make_world("moons", 0, context)
    data = context.guard(suite)
    plan = make_plan("matching", 1.0, suite.domains, 8)
    learner = context.train(plan, data, steps=3)
    objective = learner.trainer.objectives[0]  # type: ignore[attr-defined]
    assert isinstance(objective, FeatureMatching)
    assert objective.horizon == 3


@pytest.mark.slow
def test_arms_with_the_same_rows_count_the_same(tmp_path: Path) -> None:
    contexts = {arm.name: make_context(arm.name, tmp_path) for arm in ARMS}
    found = {arm.name: run_arm(arm, 0, contexts[arm.name]) for arm in ARMS}
    assert contexts["dann"].counts == contexts["zero"].counts == contexts["matching"].counts
    assert {context.counts["steps"] for context in contexts.values()} == {8}
    assert contexts["source"].counts["labels"] == contexts["dann"].counts["labels"] < contexts["target"].counts["labels"]
    for world in WORLDS:
        assert found["zero"][world]["target"] == pytest.approx(found["source"][world]["target"], abs=1.0)
        for distance in ("distance", "traces"):
            assert 0.0 <= found["dann"][world][distance] <= 2.0

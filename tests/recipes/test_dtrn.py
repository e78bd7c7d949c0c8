from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.data.suites.aspects import aspects
from graftwork.recipes.sharing.dtrn import ARMS, BATCH, RECIPE, STEPS, WORLD, build_model, derive, run_arm

TRAINED = [arm for arm in ARMS if arm.name != "oracle"]


def context_of(name: str, folder: Path) -> ArmContext:
    arm = RECIPE.arm(name)
    return ArmContext(
        slug="dtrn", arm=name, access=arm.access.parts(), seed=0, smoke=True, work=folder / name, shared=folder / "shared"
    )


def test_baselines_are_of_equal_size() -> None:
    suite = aspects(rows=200, test_rows=50, **WORLD)
    sizes = {arm.name: sum(parameter.numel() for parameter in build_model(arm, suite).parameters()) for arm in TRAINED}
    for name in ("mmoe", "mmoe-deep", "ple", "shared"):
        assert sizes[name] == pytest.approx(sizes["dtrn"], rel=0.05), sizes
    assert sizes["single"] > sizes["dtrn"], "the reference is not starved"


def test_every_field_and_history_matters_to_every_task() -> None:
    assert 0.0 < WORLD["side"] < 1.0, "with 0 each task has an aspect of its own, and the claim holds by construction"
    assert "conflict" not in WORLD


def test_hurt_tasks_are_counted_against_single_models() -> None:
    def areas(click: float, cart: float, buy: float) -> dict[str, float]:
        return {"auc.click": click, "auc.cart": cart, "auc.buy": buy, "parameters": 50.0}

    found = derive({"single": areas(70, 71, 72), "shared": areas(69, 71, 70), "dtrn": {**areas(70, 71, 73), "parameters": 100.0}})
    assert {arm: values["hurt_tasks"] for arm, values in found.items()} == {"single": 0.0, "shared": 2.0, "dtrn": 0.0}
    assert found["shared"]["relative_size"] == 0.5


def test_arms_differ_only_in_what_is_compared() -> None:
    ours = RECIPE.arm("dtrn").settings
    assert ours["options"] == {}, "the system runs at its defaults"
    assert RECIPE.arm("no-tim").settings["options"] == {"tim": "none"}
    assert RECIPE.arm("no-trm").settings["options"] == {"trm": False}
    assert len({arm.access for arm in RECIPE.arms}) == 1
    assert [arm.name for arm in TRAINED if arm.settings["layers"] != 1] == ["mmoe-deep"]
    assert RECIPE.equal_budget[0].arms == tuple(arm.name for arm in TRAINED)


def test_all_are_tuned_on_grids_of_one_size_around_what_they_start_with() -> None:
    pilot = RECIPE.pilot
    assert pilot is not None
    grids = {tuple(grid["rate"]) for grid in pilot.grids.values()}
    assert set(pilot.grids) == {"single", "shared", "mmoe", "ple", "dtrn"}
    assert len({len(grid) for grid in grids}) == 1
    for arm in pilot.grids:
        rates = sorted(pilot.grids[arm]["rate"])
        assert rates[0] < RECIPE.arm(arm).settings["rate"] < rates[-1]


def test_the_oracle_is_far_ahead_and_trains_nothing(tmp_path: Path) -> None:
    context = context_of("oracle", tmp_path)
    found = run_arm(RECIPE.arm("oracle"), 0, context)
    assert found["mean_auc"] > 85.0
    assert found["mean_auc"] == pytest.approx(np.mean(list(found["auc"].values())))
    assert "steps" not in context.counts


def test_arms_keep_their_validation_curve(tmp_path: Path) -> None:
    context = context_of("dtrn", tmp_path)
    found = run_arm(RECIPE.arm("dtrn"), 0, context)
    assert 0.0 < found["mean_auc"] < 100.0
    assert found["parameters"] > 30_000
    curve = context.curves["validation score"]
    assert curve["larger_is_better"]
    assert [step for step, _ in curve["points"]] == list(range(1, 9))
    assert context.counts["samples"] == 8 * BATCH < STEPS * BATCH

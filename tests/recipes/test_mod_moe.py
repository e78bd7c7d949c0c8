from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.sharing.mod_moe import RECIPE, derive, run_arm


def test_ratios_by_hand() -> None:
    seed = {
        "tune-all": {"scores.num_bodies": 80.0, "trained_parameters": 1000.0},
        "tune-router": {"scores.num_bodies": 60.0, "trained_parameters": 50.0},
        "grow": {"scores.num_bodies": 88.0, "trained_parameters": 250.0},
    }
    assert derive(seed) == {
        "tune-router": {"score_of_full": pytest.approx(75.0), "trained_of_full": pytest.approx(5.0)},
        "grow": {"score_of_full": pytest.approx(110.0), "trained_of_full": pytest.approx(25.0)},
    }


def test_budgets_cover_all_arms() -> None:
    grouped = [set(budget.arms) for budget in RECIPE.equal_budget]
    assert set.union(*grouped) == {arm.name for arm in RECIPE.arms}
    assert not set.intersection(*grouped)


@pytest.mark.slow
def test_arms_of_a_group_count_the_same_and_old_outputs_stay(tmp_path: Path) -> None:
    counts, measured = {}, {}
    for name in ("dense", "mutual-information", "tune-all", "tune-router", "grow"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="mod-moe",
            arm=name,
            access=arm.access.parts(),
            seed=0,
            smoke=True,
            work=tmp_path / name,
            shared=tmp_path / "shared",
        )
        measured[name] = run_arm(arm, 0, context)
        counts[name] = context.counts
    assert counts["dense"] == counts["mutual-information"]
    assert counts["tune-all"] == counts["tune-router"] == counts["grow"]
    assert measured["grow"]["old_outputs_changed"] == measured["tune-router"]["old_outputs_changed"] == 0
    assert measured["tune-all"]["old_outputs_changed"] > 0, "the measurement sees a change"
    assert measured["tune-router"]["trained_parameters"] < measured["grow"]["trained_parameters"]

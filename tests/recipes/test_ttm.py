from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.core.errors import AccessError
from graftwork.data.suites.series_zoo import forecast_target
from graftwork.recipes.timeseries.ttm import ARMS, RECIPE, ROLES, SIZES, VARIANTS, few_shot_plan, filled_context, run_arm


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="ttm",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_the_system_is_the_plans_on_the_card() -> None:
    assert few_shot_plan("tuned") == card_plan("ttm", "ttm-tuned")
    new, sharing = card_plan("ttm", "ttm"), few_shot_plan("scratch").train.sharing
    assert few_shot_plan("scratch") == few_shot_plan("bound") == new.with_train(sharing=sharing)
    assert (sharing.path, sharing.settings) == (new.train.sharing.path, SIZES)
    assert few_shot_plan("dlinear").train.sharing.path.endswith(":DLinear")


def test_ablations_leave_out_one_part_each() -> None:
    whole = VARIANTS["whole"]
    changed = {name: {key for key in {*own, *whole} if own.get(key) != whole.get(key)} for name, own in VARIANTS.items()}
    assert changed == {
        "whole": set(),
        "no-prefix": {"prefix"},
        "no-down-sampling": {"downsample"},
    }


def test_arms_see_what_their_names_say(tmp_path: Path) -> None:
    suite = forecast_target("visitors", windows=4).suite
    for arm in ARMS:
        data = make_context(arm.name, tmp_path).guard(suite, roles=ROLES)
        learns = arm.settings["kind"] in ("scratch", "dlinear", "tuned", "bound")
        if learns:
            assert np.isfinite(data.visible.targets["next"][suite.splits["train"]]).all()
        else:
            with pytest.raises(AccessError):
                data.visible.splits["train"]
            assert np.isnan(data.visible.targets["next"]).all()
        assert np.isnan(data.visible.targets["next"][suite.splits["test"]]).all()
        assert ("source_labels" in arm.access.parts()) == ("variant" in arm.settings)


def test_zero_shot_and_tuning_share_one_pre_training(tmp_path: Path) -> None:
    zero, tuned = make_context("zero", tmp_path), make_context("tuned", tmp_path)
    first = run_arm(RECIPE.arm("zero"), 0, zero)
    written = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    second = run_arm(RECIPE.arm("tuned"), 0, tuned)
    assert written
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert any(path.name == "model.safetensors" for path in written)
    assert set(first["on"]) == set(second["on"]) == {"demand", "ozone", "visitors", "weather"}
    assert tuned.counts["steps"] > zero.counts["steps"] > 0, "each is charged with it"
    assert first["mase"] == pytest.approx(np.mean(list(first["on"].values())))


def test_gaps_of_a_context_are_filled_by_straight_lines() -> None:
    suite = forecast_target("weather", windows=200).suite
    rows = suite.splits["test"]
    filled = filled_context(suite, rows)
    known = np.moveaxis(suite.inputs["series_mask"][rows], 2, 1)
    values = np.moveaxis(suite.inputs["series"][rows], 2, 1)
    np.testing.assert_array_equal(filled[known], values[known])
    gaps = np.argwhere(~known[:, :, 1:-1] & known[:, :, :-2] & known[:, :, 2:])
    assert len(gaps)
    for row, channel, step in gaps:
        ends = values[row, channel, [step, step + 2]]
        assert filled[row, channel, step + 1] == pytest.approx(ends.mean(), rel=1e-5, abs=1e-5)

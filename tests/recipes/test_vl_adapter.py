from __future__ import annotations

from graftwork.claims.plan_arms import card_plan
from graftwork.recipes.tuning.vl_adapter import ARMS, RECIPE, derive, make_plan


def test_adapters_are_plans_of_the_card_and_the_others_tune_a_shared_trunk() -> None:
    for arm in ARMS:
        name = str(arm.settings["plan"])
        plan = make_plan(name)
        assert plan.source == "pretrained"
        if name.startswith("vl-adapter"):
            assert plan.train.sharing == card_plan("vl-adapter", name).train.sharing
            assert plan.train.tuning is None
        else:
            assert plan.train.sharing.path.endswith(":SharedTrunk")
            assert plan.train.tuning is not None
    assert ARMS[0].settings["plan"] == "vl-adapter"


def test_shares_are_of_what_full_tuning_learns_and_grids_are_equal() -> None:
    found = derive({"full": {"learned": 200.0}, "single": {"learned": 8.0}})
    assert found["single"] == {"percent_learned": 4.0}
    assert RECIPE.pilot is not None
    assert {len(RECIPE.pilot.trials(arm)) for arm in RECIPE.pilot.grids} == {4}
    assert {arm.name for arm in ARMS} == set(RECIPE.pilot.grids)

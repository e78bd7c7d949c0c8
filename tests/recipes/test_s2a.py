from __future__ import annotations

from graftwork.methods.tuning.s2a import S2A
from graftwork.recipes.tuning.s2a import ARMS, RECIPE, derive
from graftwork.recipes.tuning.small_target_arms import tuned_plan


def test_arms_of_s2a_differ_in_their_codes_alone() -> None:
    built = {arm.name: tuned_plan("s2a", arm.settings).train.tuning.build() for arm in ARMS}  # type: ignore[union-attr]
    own = [built[name] for name in ("s2a", "s2a-exact", "s2a-input")]
    assert all(isinstance(tuner, S2A) for tuner in own)
    assert [tuner.codes for tuner in own] == ["derivative", "none", "input"]
    assert len({(tuner.num_tokens, tuner.bottleneck, tuner.pool) for tuner in own}) == 1
    assert {arm.settings["rate"] for arm in ARMS if arm.name.startswith("s2a")} == {3e-3}
    assert RECIPE.pilot is not None
    assert set(RECIPE.pilot.follows) == {"s2a-exact", "s2a-input"}


def test_shares_are_those_of_what_is_held() -> None:
    values = {arm.name: {"held": 10.0, "attention": 1.0} for arm in ARMS}
    values["s2a"] = {"held": 2.0, "attention": 1.0}
    values["full"] = {"held": 20.0, "attention": 1.0}
    found = derive(values)["s2a"]
    assert found["percent_of_lora"] == 20.0
    assert found["percent_of_full"] == 10.0
    assert found["percent_attention"] == 50.0

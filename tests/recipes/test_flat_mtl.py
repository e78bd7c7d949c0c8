from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.optimization.flat_mtl import AGGREGATORS, ARMS, RECIPE, derive, run_arm


def measured(accuracy: float, left: float, right: float) -> dict[str, float]:
    return {"accuracy": accuracy, "worst.top_left": left, "worst.bottom_right": right}


def test_pooling_by_hand() -> None:
    seed = {f"{short}-erm": measured(90.0 + index, 3.0, 6.0 + index) for index, short in enumerate(AGGREGATORS)}
    seed |= {f"{short}-flat": measured(93.0, 1.0 + index, 2.0) for index, short in enumerate(AGGREGATORS)}
    found = derive(seed)
    assert found["mean-erm"] == {"pooled_accuracy": 91.0, "pooled_worst": {"top_left": 3.0, "bottom_right": 7.0}}
    assert found["mean-flat"] == {"pooled_accuracy": 93.0, "pooled_worst": {"top_left": 2.0, "bottom_right": 2.0}}


def test_pairs_differ_in_what_is_compared_only() -> None:
    for short in [*AGGREGATORS]:
        plain, flat = RECIPE.arm(f"{short}-erm").settings, RECIPE.arm(f"{short}-flat").settings
        assert {key for key in plain if plain[key] != flat[key]} == {"kind"}
    assert {arm.access for arm in ARMS} == {ARMS[0].access}
    assert "cagrad-long" not in RECIPE.equal_budget[0].arms


@pytest.mark.slow
def test_arms_count_the_same_and_the_long_one_twice_as_much(tmp_path: Path) -> None:
    counts = {}
    for name in ("pcgrad-erm", "pcgrad-flat", "cagrad-long"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="flat-mtl",
            arm=name,
            access=arm.access.parts(),
            seed=0,
            smoke=True,
            work=tmp_path / name,
            shared=tmp_path / "shared",
        )
        found = run_arm(arm, 0, context)
        assert all(found["rise"][place] >= 0 for place in ("top_left", "bottom_right"))
        counts[name] = context.counts
    assert counts["pcgrad-erm"] == counts["pcgrad-flat"]
    assert counts["cagrad-long"]["steps"] == 2 * counts["pcgrad-erm"]["steps"]

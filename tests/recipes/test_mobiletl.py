from __future__ import annotations

import pytest

from graftwork.core.optional import has
from graftwork.recipes.tuning.mobiletl import ARMS, OTHERS, derive, hard_swish_bytes
from graftwork.recipes.tuning.small_target_arms import tuned_plan


@pytest.mark.skipif(not has("timm"), reason="needs timm")
def test_blocks_with_hard_swish_hold_about_half() -> None:
    share = hard_swish_bytes(False, 2, 2) / hard_swish_bytes(True, 2, 2)
    assert 0.35 < share < 0.6


def test_the_lead_is_over_methods_that_hold_no_more() -> None:
    values = {name: {"mean": 50.0, "held": 9.0} for name in OTHERS}
    values["probe"] = {"mean": 60.0, "held": 1.0}
    values["full"] = {"mean": 90.0, "held": 20.0}
    values["exact"] |= {"block": 4.0, "v3_block": 8.0, "masked_block": 2.5, "held": 9.0}
    values["mobiletl"] = {"mean": 70.0, "held": 5.0, "block": 2.0, "v3_block": 4.0}
    assert derive(values)["mobiletl"] == {
        "lead": 10.0,
        "percent_of_exact_block": 50.0,
        "percent_of_exact_v3_block": 50.0,
        "percent_of_masked_block": 80.0,
    }


def test_exact_tuning_has_the_same_blocks() -> None:
    built = {arm.name: tuned_plan("mobiletl", arm.settings).train.tuning.build() for arm in ARMS}  # type: ignore[union-attr]
    assert built["exact"].blocks == built["mobiletl"].blocks == 3
    assert built["exact"].exact
    assert not built["mobiletl"].exact

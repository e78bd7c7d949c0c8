from __future__ import annotations

from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.evaluation.forgetting import forgetting


def test_the_best_earlier_score_counts_and_the_last_experience_does_not() -> None:
    assert forgetting([[90.0], [95.0, 50.0], [60.0, 40.0, 10.0]]) == pytest.approx((35.0 + 10.0) / 2)


def test_gains_are_below_zero_and_one_experience_forgets_nothing() -> None:
    assert forgetting([[0.5], [0.75, 0.1]]) == pytest.approx(-0.25)
    assert forgetting([[0.5]]) == 0.0


@pytest.mark.parametrize("scores", [[], [[1.0], [1.0]], [[1.0, 2.0]]])
def test_rows_that_do_not_grow_are_refused(scores: Any) -> None:
    with pytest.raises(ConfigError, match="grow by one"):
        forgetting(scores)

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.training.config import ScheduleName
from graftwork.training.schedules import FLOOR, schedule_factor


@given(st.sampled_from(get_args(ScheduleName)), st.integers(1, 500), st.integers(0, 100))
def test_rise_then_fall_within_bounds(schedule: ScheduleName, horizon: int, warmup: int) -> None:
    factors = [schedule_factor(schedule, step, horizon, warmup) for step in range(horizon + 3)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert top <= horizon // 10


def test_values_by_hand() -> None:
    assert schedule_factor("constant", 70, 100) == 1.0
    assert schedule_factor("linear", 50, 100) == pytest.approx(FLOOR + 0.5 * (1 - FLOOR))
    assert schedule_factor("cosine", 25, 100) == pytest.approx(FLOOR + (1 - FLOOR) * 0.8535534)
    assert schedule_factor("wsd", 66, 99) == 1.0
    assert schedule_factor("wsd", 99, 99) == pytest.approx(FLOOR)
    assert [schedule_factor("constant", step, 100, 4) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]

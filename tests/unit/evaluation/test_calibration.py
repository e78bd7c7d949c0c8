"""Expected calibration error against its definition written out, and what chance alone shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.evaluation.calibration import calibration


def _slow_error(said: np.ndarray, happened: np.ndarray) -> float:
    total = 0.0
    for number in range(10):
        inside = [i for i, p in enumerate(said) if (number / 10 <= p < (number + 1) / 10) or (number == 9 and p == 1.0)]
        if inside:
            total += len(inside) / len(said) * abs(np.mean(happened[inside]) - np.mean(said[inside]))
    return total


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 200), seed=st.integers(0, 10**6))
def test_the_error_is_that_of_the_definition(rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    # Off the edges of bins, where 0.3 * 10 need not be 3.
    said = (draw.integers(0, 1000, size=rows) + 0.5) / 1000
    happened = draw.random(rows) < draw.random()
    found = calibration(said, happened)
    assert found is not None
    assert found["error"] == pytest.approx(_slow_error(said, happened), rel=1e-3, abs=1e-6)
    assert sum(one["rows"] for one in found["bins"]) == rows
    for one in found["bins"]:
        assert 0 <= one["low"] <= one["share"] + 1e-4
        assert one["share"] <= one["high"] + 1e-4 <= 1.0002


def test_right_probabilities_stay_below_chance_and_wrong_ones_do_not() -> None:
    below = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        said = draw.beta(2, 2, size=300)
        found = calibration(said, draw.random(300) < said)
        assert found is not None
        below += found["error"] <= found["chance"]
    # 95 % are expected; four standard deviations of 200 draws are 6 %.
    assert 178 <= below <= 200
    assert found is not None
    draw = np.random.default_rng(0)
    sure = calibration(np.full(300, 0.95), draw.random(300) < 0.6)
    assert sure is not None
    assert sure["error"] > 3 * sure["chance"]


def test_none_and_all_are_the_ends_of_an_interval() -> None:
    for rows in range(1, 60):
        for happened in (False, True):
            found = calibration(np.full(rows, 0.45), np.full(rows, happened))
            assert found is not None
            (only,) = found["bins"]
            assert only["high" if happened else "low"] == float(happened)


def test_no_row_has_no_calibration() -> None:
    assert calibration(np.zeros(0), np.zeros(0, dtype=bool)) is None

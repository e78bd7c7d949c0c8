"""The bargaining solution: its equation holds for any gradients, of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.math.bargaining import bargaining_weights


@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(-6, 6))
def test_weights_are_the_inverse_of_the_gains(seed: int, tasks: int, decades: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((tasks, tasks + 4)) * 10.0 ** rng.uniform(min(decades, 0), max(decades, 0), (tasks, 1))
    weights = bargaining_weights(rows @ rows.T)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights * (rows @ (weights @ rows)), 1.0, rtol=1e-5)


def test_hard_conflict_of_many_tasks() -> None:
    rng = np.random.default_rng(0)
    away = np.array([[1.0, 0.0, 0.0]])
    rows = np.concatenate([away, -0.97 * away + 0.2 * rng.standard_normal((15, 3))])
    rows[:, 1] += 0.5
    weights = bargaining_weights(rows @ rows.T)
    np.testing.assert_allclose(weights * (rows @ (weights @ rows)), 1.0, rtol=1e-4)
    assert (rows @ (weights @ rows) > 0).all(), "no task gets worse"


def test_opposite_gradients_cancel() -> None:
    rows = np.array([[3.0, 0.0], [-1.0, 0.0]])
    weights = bargaining_weights(rows @ rows.T)
    assert np.isfinite(weights).all()
    assert weights[1] / weights[0] == pytest.approx(3.0, rel=1e-3), "each by its own length"


def test_a_zero_row_has_no_weight_and_changes_no_other() -> None:
    weights = bargaining_weights(np.diag([4.0, 0.0, 1.0]))
    np.testing.assert_allclose(weights, [0.5, 0.0, 1.0], rtol=1e-6)
    assert bargaining_weights(np.zeros((2, 2))).tolist() == [0.0, 0.0]


def test_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        bargaining_weights(np.array([[np.nan, 0.0], [0.0, 1.0]]))

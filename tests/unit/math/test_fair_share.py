"""Alpha-fair weights: their equation holds for any gradients, of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graftwork.math.bargaining import bargaining_weights
from graftwork.math.fair_share import fair_weights

ALPHAS = [0.5, 1.0, 2.0, 5.0]


@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(-6.0, 6.0), st.sampled_from(ALPHAS))
def test_the_equation_holds(tasks: int, seed: int, power: float, alpha: float) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(tasks, tasks + 2)) * 10.0 ** (power + generator.uniform(-2, 2, size=(tasks, 1)))
    assume(np.linalg.cond(rows / np.linalg.norm(rows, axis=1, keepdims=True)) < 30)
    weights = fair_weights(rows @ rows.T, alpha)
    assert (weights > 0).all()
    np.testing.assert_allclose(rows @ rows.T @ weights * weights ** (1 / alpha), 1.0, rtol=1e-3)
    exact = fair_weights(rows @ rows.T, alpha, ridge=0.0)
    np.testing.assert_allclose(rows @ rows.T @ exact * exact ** (1 / alpha), 1.0, rtol=1e-7)
    np.testing.assert_allclose(weights @ rows, exact @ rows, atol=1e-3 * np.linalg.norm(exact @ rows))


@given(st.integers(0, 1000), st.floats(-6.0, 6.0), st.sampled_from(ALPHAS))
def test_longer_gradients_change_the_length_by_a_power(seed: int, power: float, alpha: float) -> None:
    rows, factor = np.random.default_rng(seed).normal(size=(3, 5)), 10.0**power
    direction = fair_weights(rows @ rows.T, alpha) @ rows
    found = fair_weights(factor**2 * rows @ rows.T, alpha) @ rows * factor
    np.testing.assert_allclose(found, factor ** ((1 - alpha) / (1 + alpha)) * direction, rtol=1e-6)


def test_one_is_the_bargaining_solution() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 7))
    gram = rows @ rows.T
    np.testing.assert_allclose(fair_weights(gram, 1.0, ridge=1e-9), bargaining_weights(gram), rtol=1e-6)


def test_large_alpha_nears_equal_progress() -> None:
    rows = np.array([[3.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.2]])
    progress = rows @ (fair_weights(rows @ rows.T, 50.0) @ rows)
    np.testing.assert_allclose(progress, progress[0], rtol=0.1)


def test_opposite_gradients_hardly_move_and_zero_rows_weigh_nothing() -> None:
    rows = np.array([[1.0, 0.0], [-0.3, 0.0]])
    assert np.linalg.norm(fair_weights(rows @ rows.T, 2.0) @ rows) < 0.01
    assert fair_weights(np.diag([4.0, 0.0, 1.0]), 2.0)[1] == 0.0
    assert not fair_weights(np.zeros((2, 2)), 2.0).any()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="`alpha` must be above 0; got 0"):
        fair_weights(np.eye(2), 0)
    with pytest.raises(ValueError, match="not finite"):
        fair_weights(np.array([[np.inf, 0.0], [0.0, 1.0]]), 2.0)

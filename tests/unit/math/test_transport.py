"""Transport plans: shares, soft plans near exact ones, and exact ones against a linear program."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from graftwork.core.errors import ConfigError
from graftwork.math.transport import exact_transport, sinkhorn_transport


def cost_of(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, columns))


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 100))
def test_shares_are_equal(rows: int, columns: int, seed: int) -> None:
    cost = cost_of(rows, columns, seed)
    for plan in (exact_transport(cost), sinkhorn_transport(cost, 0.1)):
        assert (plan >= -1e-12).all()
        np.testing.assert_allclose(plan.sum(axis=1), 1.0 / rows, atol=1e-6)
        np.testing.assert_allclose(plan.sum(axis=0), 1.0 / columns, atol=1e-6)


def test_an_exact_plan_is_the_assignment_of_least_cost() -> None:
    cost = cost_of(6, 6, 0)
    plan = exact_transport(cost)
    rows, columns = linear_sum_assignment(cost)
    assert float((plan * cost).sum()) == pytest.approx(cost[rows, columns].sum() / 6)
    assert sorted(plan.reshape(-1))[-6:] == [1 / 6] * 6


def test_unequal_numbers_are_a_linear_program() -> None:
    cost = cost_of(3, 5, 1)
    sums = np.concatenate([np.kron(np.eye(3), np.ones(5)), np.kron(np.ones(3), np.eye(5))])
    best = linprog(cost.reshape(-1), A_eq=sums, b_eq=[1 / 3] * 3 + [1 / 5] * 5).fun
    assert float((exact_transport(cost) * cost).sum()) == pytest.approx(best, rel=1e-6)


def test_soft_plans_come_near_exact_ones_and_even_out_with_more_entropy() -> None:
    cost = cost_of(5, 5, 2)
    exact = float((exact_transport(cost) * cost).sum())
    costs = [
        float((sinkhorn_transport(cost, regularization, iterations=20000) * cost).sum()) for regularization in (0.002, 0.05, 1.0)
    ]
    assert costs[0] == pytest.approx(exact, abs=2e-3)
    assert costs == sorted(costs)
    np.testing.assert_allclose(sinkhorn_transport(cost, 1e4), 1 / 25, rtol=1e-3)
    with pytest.raises(ConfigError, match="above 0"):
        sinkhorn_transport(cost, 0.0)

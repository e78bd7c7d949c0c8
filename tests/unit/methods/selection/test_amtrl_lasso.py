"""Relevance against the conditions of its minimum, budgets to the row, and shared bases that are found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.math.shared_linear import fit_shared_basis, ridge_head
from graftwork.methods.selection.amtrl_lasso import SourceBudget, relevance, share_out


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), penalty=st.sampled_from([0.01, 0.1, 0.4]))
def test_the_sparse_relevance_is_the_minimum(seed: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    heads, target = random.normal(size=(5, 20)) * random.uniform(0.1, 10, size=20), random.normal(size=5)
    found = relevance(heads, target, penalty=penalty)
    unit, wanted = heads / np.linalg.norm(heads, axis=0), target / np.linalg.norm(target)
    slope = unit.T @ (wanted - unit @ found)
    # Where a coordinate is used, the slope is the penalty with its sign; elsewhere it is no larger.
    used = found != 0
    np.testing.assert_allclose(slope[used], penalty * np.sign(found[used]), atol=2e-3)
    assert np.abs(slope).max() <= penalty + 2e-3
    assert used.sum() <= 5


def test_the_shortest_relevance_writes_the_target_and_is_shorter_than_the_sparse_one() -> None:
    random = np.random.default_rng(0)
    heads, target = random.normal(size=(4, 12)), random.normal(size=4)
    unit, wanted = heads / np.linalg.norm(heads, axis=0), target / np.linalg.norm(target)
    short, sparse = relevance(heads, target, rule="l2", penalty=1e-9), relevance(heads, target, penalty=1e-3)
    np.testing.assert_allclose(short, np.linalg.lstsq(unit, wanted, rcond=None)[0], atol=1e-6)
    np.testing.assert_allclose(unit @ sparse, wanted, atol=1e-2)
    assert np.linalg.norm(short) < np.linalg.norm(sparse)
    assert np.abs(short).sum() > np.abs(sparse).sum()


def test_sizes_of_heads_do_not_count_and_empty_ones_have_no_relevance() -> None:
    random = np.random.default_rng(1)
    heads, target = random.normal(size=(3, 6)), random.normal(size=3)
    np.testing.assert_allclose(relevance(heads * np.arange(1, 7), 9.0 * target), relevance(heads, target), atol=1e-3)
    heads[:, 2] = 0.0
    assert relevance(heads, target)[2] == 0.0
    assert not relevance(heads, np.zeros(3)).any()


def test_a_source_with_the_targets_head_gets_the_budget() -> None:
    random = np.random.default_rng(2)
    heads, target = random.normal(size=(6, 10)), random.normal(size=6)
    heads[:, 4] = -3.0 * target  # a sign does not matter
    counts = SourceBudget(least=2, penalty=0.05).counts(heads, target, 120, 1)
    assert counts.sum() == 120
    assert counts[4] == 102
    assert set(np.delete(counts, 4).tolist()) == {2}
    shortest = SourceBudget(rule="l2", least=2, penalty=0.05).counts(heads, target, 120, 1)
    assert 2 < shortest[4] < 102
    assert SourceBudget(rule="uniform", least=2).counts(heads, target, 120, 1).tolist() == [12] * 10


def test_the_penalty_falls_from_epoch_to_epoch() -> None:
    random = np.random.default_rng(3)
    heads, target = random.normal(size=(5, 8)), random.normal(size=5)
    budget = SourceBudget(penalty=0.8, decay=0.5, least=0)
    third = share_out(np.abs(relevance(heads, target, penalty=0.2)), 100, 0)
    np.testing.assert_array_equal(budget.counts(heads, target, 100, 3), third)


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.floats(0, 10), min_size=1, max_size=9), rest=st.integers(0, 50), least=st.integers(0, 3))
def test_shares_are_whole_and_complete(weights: list[float], rest: int, least: int) -> None:
    counts = share_out(np.array(weights), rest + least * len(weights), least)
    assert counts.sum() == rest + least * len(weights)
    assert counts.min() >= least
    order = np.argsort(weights, kind="stable")
    assert (np.diff(counts[order]) >= -1).all()


def test_budgets_and_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="too small"):
        share_out(np.ones(4), 7, 2)
    for setting in ({"rule": "l3"}, {"penalty": 0.0}, {"decay": 1.5}, {"least": -1}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            SourceBudget(**setting)  # type: ignore[arg-type]


def test_a_shared_basis_is_found_again() -> None:
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(12, 3)))[0]
    heads = random.normal(size=(3, 8))
    # Fewer rows than inputs in every task: no task alone could find its weights.
    inputs = [random.normal(size=(9, 12)) for _ in range(8)]
    values = [rows @ basis @ heads[:, task] for task, rows in enumerate(inputs)]
    found, own = fit_shared_basis(inputs, values, 3, ridge=1e-9, steps=300)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found @ own, basis @ heads, atol=1e-2)


def test_a_ridge_head_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(1)
    rows, values = random.normal(size=(30, 4)), random.normal(size=30)
    peer = Ridge(alpha=0.2 * 30, fit_intercept=False).fit(rows, values)
    np.testing.assert_allclose(ridge_head(rows, values, 0.2), peer.coef_, rtol=1e-8)

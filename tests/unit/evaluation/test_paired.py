"""Paired tests against scipy and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graftwork.evaluation.paired import corrected_resampled_ttest, holm, paired_interval, sign_test

DIFFERENCES = np.array([1.2, 0.4, 2.0, -0.3, 0.9])


def test_without_exchanged_rows_it_is_the_plain_t_test() -> None:
    found = corrected_resampled_ttest(DIFFERENCES, 100, 0)
    expected = stats.ttest_1samp(DIFFERENCES, 0.0)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    bounds = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high))
    again = paired_interval(DIFFERENCES)
    assert (again.value, again.low, again.high) == pytest.approx((0.84, bounds.low, bounds.high))


def test_correction_worked_out_by_hand() -> None:
    found = corrected_resampled_ttest(DIFFERENCES, 80, 20)
    mean, variance = 0.84, np.var(DIFFERENCES, ddof=1)
    assert found.standard_error == pytest.approx(np.sqrt((1 / 5 + 20 / 80) * variance))
    assert found.statistic == pytest.approx(mean / found.standard_error)
    assert found.degrees == 4
    assert found.p_value == pytest.approx(2 * stats.t.sf(found.statistic, 4))
    assert found.probability_positive == pytest.approx(stats.t.cdf(found.statistic, 4))


def test_correction_holds_its_level_where_the_plain_test_does_not() -> None:
    """Seeds that share four fifths of their rows: differences correlate by about n_test / (n_test + n_train) though nothing
    differs."""
    rng = np.random.default_rng(0)
    common, own = np.sqrt(0.2), np.sqrt(0.8)
    alarms = np.zeros(2)
    for _ in range(600):
        differences = common * rng.normal() + own * rng.normal(size=10)
        alarms += [corrected_resampled_ttest(differences, 80, exchanged).p_value < 0.05 for exchanged in (20, 0)]
    corrected, plain = alarms / 600
    assert corrected <= 0.07
    assert plain >= 0.2


def test_missing_differences_are_left_out() -> None:
    found = corrected_resampled_ttest([1.2, np.nan, 0.4, 2.0, -0.3, 0.9], 80, 20)
    assert found == corrected_resampled_ttest(DIFFERENCES, 80, 20)


@pytest.mark.parametrize("differences", [[1.0], [], [0.7, 0.7, 0.7]])
def test_nothing_is_claimed_without_variation(differences: list[float]) -> None:
    found = corrected_resampled_ttest(differences, 80, 20)
    assert np.isnan(found.p_value)
    assert np.isnan(found.probability_positive)
    assert np.isnan(found.interval.low)


def test_equal_results_do_not_differ() -> None:
    assert corrected_resampled_ttest([0.0, 0.0, 0.0], 80, 20).p_value == 1.0


def test_counts_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="`num_train` must be at least 1 and `num_test` at least 0; got 0 and 5"):
        corrected_resampled_ttest(DIFFERENCES, 0, 5)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_sign_test_is_a_binomial_test(differences: list[float]) -> None:
    decided = [value for value in differences if value]
    expected = stats.binomtest(sum(value > 0 for value in decided), len(decided)).pvalue if decided else 1.0
    assert sign_test(differences) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_its_definition(p_values: list[float]) -> None:
    found = holm(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        assert found[index] == pytest.approx(running)


def test_holm_leaves_unknown_ones_out() -> None:
    assert np.allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04], equal_nan=True)
    assert np.isnan(holm([np.nan])).all()

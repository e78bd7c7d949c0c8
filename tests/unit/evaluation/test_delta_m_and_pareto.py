"""Relative changes, delta-m with its intervals, and the Pareto front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.evaluation.changes import Change, SeedScores, change, mean_change
from graftwork.evaluation.delta_m import delta_m, relative_change, relative_changes, skills
from graftwork.evaluation.paired import corrected_resampled_ttest
from graftwork.evaluation.pareto import pareto_front

TOPIC = TaskSpec(name="topic", kind="multiclass", size=3)
PRICE = TaskSpec(name="price", kind="regression", size=1)


def test_sign_follows_the_direction_of_the_metric() -> None:
    assert relative_change(TOPIC, 0.88, 0.80) == pytest.approx(10.0)
    assert relative_change(PRICE, 1.1, 1.0) == pytest.approx(-10.0)
    assert relative_change("r2", 0.1, -0.2) == pytest.approx(150.0)


def test_a_bounded_score_near_zero_does_not_explode() -> None:
    assert relative_change("quadratic_kappa", 0.1, 0.001) == pytest.approx(198.0)
    assert relative_change("rmse", 0.002, 0.001) == pytest.approx(-100.0)  # units are the user's: no floor


def test_delta_m_is_the_mean_over_tasks() -> None:
    assert delta_m([TOPIC, PRICE], {"topic": 0.88, "price": 1.1}, {"topic": 0.80, "price": 1.0}) == pytest.approx(0.0)
    assert delta_m(["accuracy", "mae"], [0.88, 0.9], [0.80, 1.0]) == pytest.approx(10.0)
    assert delta_m(["accuracy", "mae"], [0.88, float("nan")], [0.80, 1.0]) == pytest.approx(10.0)
    assert np.isnan(delta_m(["mae"], [float("nan")], [1.0]))


def test_delta_m_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        delta_m([], [], [])
    with pytest.raises(ValueError, match="2 tasks but 1 values and 2 references"):
        delta_m(["mae", "rmse"], [1.0], [1.0, 2.0])


def scores(values: list[float], seeds: tuple[int, ...], noise: float = 0.0) -> SeedScores:
    rows = np.random.default_rng(0).normal(0, noise, 400) if noise else np.zeros(400)
    return SeedScores(seeds, np.array(values), np.array(values)[:, None] + rows)


def test_seeds_are_paired_by_their_number_and_average_to_the_value() -> None:
    found = change(TOPIC, scores([0.6, 0.7, 0.8], (2, 0, 1)), scores([0.5, 0.6, 0.7], (0, 1, 2)))
    assert found.value == pytest.approx(100 / 6)
    assert found.seeds == pytest.approx([-100 / 6, 100 / 3, 100 / 3])
    assert found.seeds.mean() == pytest.approx(found.value)


def test_seeds_in_step_make_a_narrow_interval_seeds_apart_a_wide_one() -> None:
    paired = change(TOPIC, scores([0.55, 0.65, 0.75], (0, 1, 2)), scores([0.5, 0.6, 0.7], (0, 1, 2))).interval()
    apart = change(TOPIC, scores([0.55, 0.65, 0.75], (0, 1, 2)), scores([0.5, 0.6, 0.7], (7, 8, 9))).interval()
    assert paired.high - paired.low < 1e-6
    assert apart.high - apart.low > 50


def test_one_seed_against_three_takes_the_noise_of_the_three() -> None:
    found = change(TOPIC, scores([0.5, 0.6, 0.7], (0, 1, 2)), scores([0.6], (0,)))
    assert found.unpaired_error == pytest.approx(np.sqrt((100 / 6) ** 2 * (1 / 3 + 1)))
    assert found.unpaired_degrees == 2
    alone = change(TOPIC, scores([0.5], (0,)), scores([0.6], (0,)))
    assert alone.unpaired_error == 0.0


def test_delta_m_of_tasks_with_opposite_rows_is_surer_than_each() -> None:
    noise = np.random.default_rng(0).normal(0, 5, 1000)
    first, second = Change(3.0, 3 + noise, np.array([2.0, 3, 4])), Change(1.0, 1 - noise, np.array([2.0, 1, 0]))
    together = mean_change([first, second])
    assert together.value == 2.0
    assert together.seeds == pytest.approx([2, 2, 2])
    interval = together.interval()
    assert (interval.low, interval.high) == pytest.approx((2.0, 2.0))
    assert first.interval().high - first.interval().low > 15


def test_the_mean_pairs_seeds_by_their_number_and_not_by_their_place() -> None:
    rows = np.zeros(10)
    first = Change(2.0, rows + 2, np.array([1.0, 3.0, 2.0]), ids=(0, 1, 2))
    second = Change(5.0, rows + 5, np.array([8.0, 2.0]), ids=(2, 0))
    together = mean_change([first, second])
    assert together.ids == (0, 2)
    assert together.seeds == pytest.approx([(1 + 2) / 2, (2 + 8) / 2])
    apart = mean_change([first, Change(5.0, rows + 5, np.array([8.0, 2.0]), ids=(7, 8))])
    assert apart.ids == ()
    assert apart.unpaired_error > 0  # nothing is paired, and yet the seeds are not silent


def test_weights_move_value_rows_and_seeds_alike() -> None:
    changes = [Change(v, np.full(4, v), np.array([v, v + 2]), ids=(0, 1)) for v in (1.0, 5.0)]
    found = mean_change(changes, [3.0, 1.0])
    assert (found.value, found.rows.tolist(), found.seeds.tolist()) == (2.0, [2.0] * 4, [2.0, 4.0])
    with pytest.raises(ValueError, match=r"one weight a change \(2\); got 1"):
        mean_change(changes, [1.0])


def in_folds(values: list[float], ids: tuple[int, ...]) -> SeedScores:
    return SeedScores((0,), np.array([np.mean(values)]), np.full((1, 50), np.mean(values)), np.array(values), ids)


def test_a_baseline_that_is_right_nearly_everywhere_lets_no_task_decide_the_mean() -> None:
    assert skills("accuracy", [0.99, 1.0], 1.0) == pytest.approx([-20.0, 0.0])
    assert skills("accuracy", 0.5, 0.9) == pytest.approx(-400.0)
    assert skills("rmse", [1.0, 0.0, 3.0], 2.0) == pytest.approx(relative_changes("rmse", [1.0, 0.0, 3.0], 2.0))


def test_folds_are_paired_by_their_number() -> None:
    found = change(TOPIC, in_folds([0.6, 0.9, 0.7], (2, 4, 1)), in_folds([0.5, 0.5, 0.5], (1, 2, 3)))
    assert dict(found.by_id) == pytest.approx({2: 20.0, 1: 40.0})
    assert found.in_folds


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("training", [0.0, 1.0, 2.0])
def test_folds_that_differ_by_their_training_rows(folds: int, training: float) -> None:
    """Zero is left out of the 95 % interval by at most one change in twenty that is none, and the interval of few folds stays useful.

    Args:
        training: Variance of a mean change that comes from the training rows, half of which folds have in common, as a multiple of the
            variance that comes from the test rows.
    """
    draw, number = np.random.default_rng([folds, int(training)]), 1500
    spread = np.sqrt(training / (0.5 + 0.5 / folds))
    by_training = spread * (np.sqrt(0.5) * draw.normal(size=(number, 1)) + np.sqrt(0.5) * draw.normal(size=(number, folds)))
    values = by_training + np.sqrt(folds) * draw.normal(size=(number, folds))
    rows = draw.normal(size=400)
    rows = (rows - rows.mean()) / rows.std(ddof=1)
    found = [
        Change(float(one.mean()), one.mean() + rows, one, exchange=1 / (folds - 1), in_folds=True).interval() for one in values
    ]
    # Four standard errors of a share of 1500.
    assert np.mean([interval.low > 0 or interval.high < 0 for interval in found]) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / number)
    widths = [(interval.high - interval.low) / 2 for interval in found]
    # 1.96 if nothing but the rows were unsure, and all of it known.
    assert np.median(widths) < 2.7 * 1.96 * np.sqrt(1 + training)


def test_the_p_value_covers_rows_and_seeds_and_agrees_with_the_t_test() -> None:
    draw = np.random.default_rng(0)
    seeds = np.array([1.0, 2.0, 4.0])
    only_seeds = Change(seeds.mean(), np.full(2000, seeds.mean()), seeds, exchange=0.25)
    assert only_seeds.p_value == pytest.approx(corrected_resampled_ttest(seeds, 4, 1).p_value, rel=1e-9)
    only_rows = Change(2.0, 2 + draw.normal(size=20000), np.array([2.0, 2.0]))
    assert only_rows.p_value == pytest.approx(0.0455, abs=0.003)
    both = Change(2.0, 2 + draw.normal(size=20000), np.array([1.0, 3.0]))
    assert both.p_value > only_rows.p_value
    assert Change(0.0, np.zeros(9), np.zeros(3)).p_value == 1.0
    assert np.isnan(Change(float("nan"), np.full(9, np.nan), np.zeros(3)).p_value)


def test_undefined_tasks_are_left_out_of_the_mean() -> None:
    nothing = Change(float("nan"), np.full(10, np.nan), np.array([np.nan, np.nan]))
    found = mean_change([nothing, Change(4.0, np.full(10, 4.0), np.array([3.0, 5.0]))])
    assert found.value == 4.0
    assert found.seeds == pytest.approx([3, 5])
    with pytest.raises(ValueError, match="at least one change"):
        mean_change([])


def test_probability_is_the_share_of_draws_above_zero() -> None:
    assert Change(1.0, np.array([1.0, 2.0, -1.0, np.nan]), np.zeros(0)).probability == pytest.approx(2 / 3)


@given(
    st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=0, max_size=25),
    st.tuples(*[st.booleans()] * 3),
)
def test_front_against_brute_force(points: list[tuple[int, int, int]], maximize: tuple[bool, bool, bool]) -> None:
    table = np.array(points, dtype=float).reshape(-1, 3)
    signed = table * np.where(maximize, -1, 1)
    expected = [not any((other <= row).all() and (other < row).any() for other in signed) for row in signed]
    assert pareto_front(table, maximize=maximize).tolist() == expected


def test_unknown_costs_are_never_on_the_front() -> None:
    assert pareto_front([[np.nan, 1.0], [2.0, 2.0], [3.0, 3.0]]).tolist() == [False, True, False]


def test_front_refuses_what_is_no_table() -> None:
    with pytest.raises(ValueError, match=r"shape \[N, D\]; got \[3\]"):
        pareto_front([1, 2, 3])
    with pytest.raises(ValueError, match=r"one entry a column \(2\); got 3"):
        pareto_front([[1, 2]], maximize=[True, False, True])


def test_arrays_broadcast() -> None:
    assert relative_changes("accuracy", np.array([0.4, 0.6]), 0.5) == pytest.approx([-20, 20])

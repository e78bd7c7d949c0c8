"""Bootstrap: repeatable, grouped, equal to the slow way, and with the coverage that its level promises."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.evaluation.bootstrap import Resampler, bootstrap_metric, bootstrap_statistic, percentile_interval, resample
from graftwork.evaluation.changes import SeedScores, change
from graftwork.evaluation.metrics import METRICS, prepare_metric, score_task

BINARY = TaskSpec(name="late", kind="binary", size=1)
VALUE = TaskSpec(name="price", kind="regression", size=1)


def test_counts_sum_to_the_number_of_rows_and_repeat() -> None:
    resampler = Resampler(30, num_resamples=50, seed=3)
    counts = np.concatenate(list(resampler.blocks()))
    assert counts.shape == (50, 30)
    assert (counts.sum(axis=1) == 30).all()
    assert np.array_equal(counts, np.concatenate(list(resampler.blocks())))
    assert not np.array_equal(counts, np.concatenate(list(Resampler(30, num_resamples=50, seed=4).blocks())))


def test_blocks_do_not_hang_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resampler = Resampler(100, num_resamples=17, seed=0)
    monkeypatch.setattr("graftwork.evaluation.bootstrap._BLOCK_ENTRIES", 500)
    blocks = list(resampler.blocks())
    assert [len(block) for block in blocks] == [5, 5, 5, 2]


def test_groups_are_drawn_whole() -> None:
    groups = np.array([5, 5, 9, 9, 9, 2])
    resampler = Resampler(6, groups=groups, num_resamples=40)
    counts = np.concatenate([resampler.row_counts(block) for block in resampler.blocks()])
    assert resampler.num_units == 3
    for group in (5, 9, 2):
        assert (counts[:, groups == group] == counts[:, groups == group][:, :1]).all()
    assert set(np.unique(counts[:, [0, 2, 5]].sum(axis=1))) == {3}


def test_fast_way_equals_the_general_one() -> None:
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(-1, 2, 60), rng.random(60)
    fast = bootstrap_metric(BINARY, target, prediction, "roc_auc", num_resamples=200, seed=5)
    slow = bootstrap_statistic(
        lambda truth, score: score_task(BINARY, truth, score, ["roc_auc"])["roc_auc"],
        target,
        prediction,
        num_resamples=200,
        seed=5,
    )
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)
    assert fast.low < fast.value < fast.high


def test_resamples_without_a_positive_are_left_out() -> None:
    target, prediction = np.array([1, 0, 0, 0, 0, 0, 0, 0]), np.linspace(1, 0, 8)
    evaluate = prepare_metric(BINARY, target, prediction, "roc_auc")
    resampler = Resampler(8, num_resamples=300)
    draws = resample([resampler.adapt(evaluate)], resampler)[0]
    assert 50 < np.isnan(draws).sum() < 150  # (7/8)^8 = 34 % of the resamples miss the positive
    interval = bootstrap_metric(BINARY, target, prediction, "roc_auc", num_resamples=300)
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)


def test_mostly_undefined_draws_give_no_interval() -> None:
    interval = percentile_interval(0.5, np.array([0.4, np.nan, np.nan, np.nan]))
    assert interval.value == 0.5
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_interval_is_cut_to_the_range_of_the_metric() -> None:
    interval = percentile_interval(0.99, np.linspace(0.9, 1.2, 100), low=0.0, high=1.0)
    assert interval.high == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_coverage_is_near_nominal(metric: str) -> None:
    rng = np.random.default_rng(11)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        target = rng.integers(0, 2, rows)
        return target, np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1)

    truth = score_task(BINARY, *draw(400_000), [metric])[metric]
    hits = 0
    for trial in range(200):
        interval = bootstrap_metric(BINARY, *draw(150), metric, num_resamples=250, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_rows_of_a_group_that_repeat_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    target = np.repeat(rng.normal(size=40), 10)[:, None]
    prediction = target + np.repeat(rng.normal(size=40), 10)[:, None]
    single = bootstrap_metric(VALUE, target, prediction)
    grouped = bootstrap_metric(VALUE, target, prediction, groups=np.repeat(np.arange(40), 10))
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_many_rows_are_bundled_without_changing_the_interval(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    target = rng.normal(size=(3000, 1))
    prediction = target + rng.normal(size=(3000, 1))
    plain = bootstrap_metric(VALUE, target, prediction, metric)
    monkeypatch.setattr("graftwork.evaluation.bootstrap._MAX_UNITS", 700)
    assert Resampler(3000).num_units == 700
    bundled = bootstrap_metric(VALUE, target, prediction, metric)
    assert bundled.value == pytest.approx(plain.value)
    assert bundled.high - bundled.low == pytest.approx(plain.high - plain.low, rel=0.15)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_units_adapt_every_metric(metric: str) -> None:
    rng = np.random.default_rng(6)
    target, prediction, groups = rng.integers(0, 2, 90), rng.random(90), rng.integers(0, 12, 90)
    evaluate = prepare_metric(BINARY, target, prediction, metric)
    resampler = Resampler(90, groups=groups, num_resamples=20)
    (block,) = resampler.blocks()
    assert resampler.adapt(evaluate)(block) == pytest.approx(evaluate(resampler.row_counts(block)))


def plan_scores(target: np.ndarray, predictions: list[np.ndarray], resampler: Resampler) -> SeedScores:
    evaluators = [prepare_metric(VALUE, target, prediction, "rmse") for prediction in predictions]
    point = np.array([evaluate(np.ones((1, len(target))))[0] for evaluate in evaluators])
    adapted = [resampler.adapt(evaluate) for evaluate in evaluators]
    return SeedScores(tuple(range(len(predictions))), point, resample(adapted, resampler))


def test_paired_interval_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(4)
    target = rng.normal(size=(300, 1))
    common = rng.standard_t(3, size=(300, 1))  # hard rows are hard for both plans
    first, second = (target + common + rng.normal(0, 0.2, (300, 1)) for _ in range(2))
    left = plan_scores(target, [first], Resampler(300, seed=1))
    paired = change(VALUE, left, plan_scores(target, [second], Resampler(300, seed=1))).interval()
    unpaired = change(VALUE, left, plan_scores(target, [second], Resampler(300, seed=2))).interval()
    assert paired.high - paired.low < 0.4 * (unpaired.high - unpaired.low)


def test_a_plan_against_itself_does_not_change() -> None:
    rng = np.random.default_rng(4)
    target = rng.normal(size=(50, 1))
    scores = plan_scores(target, [target + rng.normal(size=(50, 1)) for _ in range(3)], Resampler(50))
    interval = change(VALUE, scores, scores).interval()
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_two_levels_cover_the_expected_change_over_seeds_and_rows() -> None:
    """Three seeds and 120 rows: the interval has to hold what another three seeds and other rows would give on average."""
    rng = np.random.default_rng(5)
    spread, trials, hits, rows_only = 0.08, 200, 0, 0
    truth = 100 * (1 - 0.9 * np.sqrt(1 + spread**2) / np.sqrt(1 + spread**2))
    for trial in range(trials):
        target, noise = np.zeros((120, 1)), rng.normal(size=(120, 1))
        left = [0.9 * (noise + rng.normal(0, 0.3, (120, 1))) / np.sqrt(1.09) * (1 + rng.normal(0, spread)) for _ in range(3)]
        right = [(noise + rng.normal(0, 0.3, (120, 1))) / np.sqrt(1.09) * (1 + rng.normal(0, spread)) for _ in range(3)]
        resampler = Resampler(120, num_resamples=250, seed=trial)
        found = change(VALUE, plan_scores(target, left, resampler), plan_scores(target, right, resampler))
        interval = found.interval()
        hits += interval.low <= truth <= interval.high
        low, high = np.quantile(found.rows, [0.025, 0.975])
        rows_only += low <= truth <= high
    assert hits / trials >= 0.9
    assert rows_only / trials < 0.75  # what ignoring the seeds would claim


def test_scores_of_seeds_come_with_an_interval_in_range() -> None:
    point = np.array([0.99, 1.0, 0.97])
    scores = SeedScores((0, 1, 2), point, np.tile(point[:, None], (1, 100)))
    interval = scores.interval(METRICS["accuracy"])
    assert interval.value == pytest.approx(0.98667, abs=1e-5)
    assert 0.9 < interval.low < interval.value < interval.high <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 0}, "`num_rows` must be at least 1; got 0"),
        ({"num_rows": 3, "num_resamples": 1}, "`num_resamples` must be at least 2; got 1"),
        ({"num_rows": 3, "groups": np.array([1, 2])}, r"`groups` must have one entry a row \(3\); got 2"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampler(**arguments)


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same number of rows; got \[2, 3\]"):
        bootstrap_statistic(lambda a, b: 0.0, np.zeros(2), np.zeros(3))

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.evaluation.flips import count_flips, distances, mean_of_rows, right_rows, same_rows
from graftwork.evaluation.metrics import score_task
from graftwork.tasks.thresholds import KEY

CLASSES = TaskSpec(name="level", kind="multiclass", size=3)
YES = TaskSpec(name="flag", kind="binary", size=1)
LABELS = TaskSpec(name="tags", kind="multilabel", size=2)
VALUES = TaskSpec(name="amount", kind="regression", size=1, center=(0.0,), scale=(1.0,))


def test_right_rows_of_each_kind() -> None:
    said = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
    np.testing.assert_array_equal(right_rows(CLASSES, np.array([0, 1, -1]), said), [1, 0, np.nan])
    np.testing.assert_array_equal(right_rows(YES, np.array([1, 0, -1, 1]), np.array([0.6, 0.6, 0.9, 0.4])), [1, 0, np.nan, 0])
    tags = np.array([[1.0, 0.0], [1.0, 1.0], [np.nan, 1.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(
        right_rows(LABELS, tags, np.array([[0.9, 0.1], [0.9, 0.1], [0.0, 0.8], [0.5, 0.5]])), [1, 0, 1, np.nan]
    )
    assert right_rows(VALUES, np.zeros((2, 1)), np.zeros((2, 1))) is None
    assert same_rows(VALUES, np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1))) is None


@pytest.mark.parametrize(
    "spec", [YES, replace(YES, details={KEY: [0.3]}), CLASSES, replace(CLASSES, details={KEY: [0.6, 0.3, 0.1]})]
)
def test_the_share_of_right_rows_is_the_accuracy(spec: TaskSpec) -> None:
    # Trees and neighbours say exactly one half, which is no yes to the metrics.
    draw = np.random.default_rng(0)
    truth = draw.integers(-1, max(spec.size, 2), size=200)
    answers = draw.integers(0, 11, size=200) / 10 if spec.size == 1 else draw.dirichlet(np.ones(3), size=200)
    right = right_rows(spec, truth, answers)
    assert right is not None
    assert np.nanmean(right) == pytest.approx(score_task(spec, truth, answers, ["accuracy"])["accuracy"])


def test_same_rows_and_distances() -> None:
    one, two = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]]), np.array([[0.4, 0.3, 0.3], [0.5, 0.4, 0.1]])
    np.testing.assert_array_equal(same_rows(CLASSES, np.array([-1, -1]), one, two), [1, 0])
    np.testing.assert_array_equal(same_rows(YES, np.array([0, 0]), np.array([0.9, 0.1]), np.array([0.6, 0.6])), [1, 0])
    teacher = np.array([[0.0], [2.0], [4.0]])
    np.testing.assert_allclose(distances(teacher, teacher + 1.0), 1.0 / teacher.std())


def test_flips_are_counted_among_rows_with_a_label() -> None:
    before = np.array([[0, 1, 1, 0, np.nan], [0, 1, 0, 0, np.nan]], dtype=float)
    after = np.array([[1, 1, 0, 0, np.nan], [1, 0, 1, 0, np.nan]], dtype=float)
    flips = count_flips(before, after)
    assert (flips.positive, flips.negative, flips.rows) == (3 / 8, 2 / 8, 4)
    assert flips.net.value == pytest.approx(1 / 8)
    assert flips.net.low < flips.net.value < flips.net.high


def test_one_seed_gives_no_interval_and_no_difference_is_no_doubt() -> None:
    assert math.isnan(mean_of_rows(np.ones((1, 9))).low)
    same = mean_of_rows(np.zeros((3, 9)))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_intervals_cover_what_they_say() -> None:
    """Rows and seeds both move the mean; nineteen of twenty intervals hold the truth."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = (
            0.2 + 0.1 * random.standard_normal((4, 1)) + random.standard_normal((1, 80)) + 0.5 * random.standard_normal((4, 80))
        )
        found = mean_of_rows(values)
        hits += found.low <= 0.2 <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_rows_of_one_group_count_once() -> None:
    random = np.random.default_rng(0)
    once = random.standard_normal((1, 20)) + 0.01 * random.standard_normal((3, 20))
    groups = np.repeat(np.arange(20), 5)
    repeated = np.repeat(once, 5, axis=1)
    plain, grouped, alone = mean_of_rows(repeated), mean_of_rows(repeated, groups), mean_of_rows(once)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low)
    assert plain.high - plain.low < 0.8 * (grouped.high - grouped.low)


def test_shared_training_rows_widen_the_interval() -> None:
    values = np.random.default_rng(0).standard_normal((3, 50))
    assert mean_of_rows(values, exchange=0.5).high > mean_of_rows(values).high

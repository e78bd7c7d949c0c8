"""Shuffled companions, and what a task's result is called."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.controls import classify_control, shuffled_companions

ROWS = 200


@pytest.fixture
def suite() -> Suite:
    rng = np.random.default_rng(0)
    colour = rng.normal(size=(ROWS, 3)).astype(np.float32)
    colour[rng.random(ROWS) < 0.3] = np.nan
    colour[5, 1] = np.nan
    return Suite.of_arrays(
        name="toy",
        input_specs={"table": InputSpec(kind="table")},
        tasks=(
            TaskSpec(name="kept", kind="binary", size=1),
            TaskSpec(name="topic", kind="multiclass", size=4),
            TaskSpec(name="colour", kind="regression", size=3),
        ),
        inputs={"numeric": rng.normal(size=(ROWS, 2)).astype(np.float32)},
        targets={"kept": rng.integers(-1, 2, ROWS), "topic": rng.integers(-1, 4, ROWS), "colour": colour},
        splits={"train": np.arange(0, 120), "val": np.arange(120, 160), "test": np.arange(160, 200)},
    )


def test_only_labelled_training_rows_of_companions_move(suite: Suite) -> None:
    found = shuffled_companions(suite, "kept", seed=3)
    assert found.targets["kept"] is suite.targets["kept"]
    for name in ("topic", "colour"):
        before, after = suite.targets[name], found.targets[name]
        assert np.array_equal(before[120:], after[120:], equal_nan=True)
        assert not np.array_equal(before[:120], after[:120], equal_nan=True)
        order = lambda part: part[np.lexsort(np.nan_to_num(part.reshape(len(part), -1), nan=9.0).T)]  # noqa: E731
        assert np.array_equal(order(before[:120]), order(after[:120]), equal_nan=True)
    assert np.array_equal(suite.targets["topic"] == -1, found.targets["topic"] == -1)
    missing = np.isnan(suite.targets["colour"]).all(axis=1)
    assert np.array_equal(missing, np.isnan(found.targets["colour"]).all(axis=1))
    assert found.tasks == suite.tasks


def test_companions_lose_their_relation_to_the_inputs_and_to_each_other(suite: Suite) -> None:
    twin = suite.with_targets({"topic": suite.targets["kept"].copy()})
    found = shuffled_companions(twin, "kept", seed=0)
    train = (found.targets["kept"][:120] >= 0) & (found.targets["topic"][:120] >= 0)
    same = found.targets["kept"][:120][train] == found.targets["topic"][:120][train]
    assert 0.3 < same.mean() < 0.7


def test_shuffles_repeat_by_seed(suite: Suite) -> None:
    first, again, other = (shuffled_companions(suite, "kept", seed=seed).fingerprint() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_unknown_task_is_named(suite: Suite) -> None:
    with pytest.raises(DataError, match="no task 'colours'; the tasks are kept, topic, colour"):
        shuffled_companions(suite, "colours", seed=0)


@pytest.mark.parametrize(
    ("gain", "over_control", "label"),
    [
        ("better", "better", "transfer"),
        ("probably better", "probably better", "transfer"),
        ("better", "no difference", "regularisation"),
        ("better", "worse", "regularisation"),
        ("better", "unclear", "gain"),
        ("worse", "worse", "harm"),
        ("worse", "no difference", "cost"),
        ("probably worse", "better", "cost"),
        ("worse", "unclear", "loss"),
        ("no difference", "better", "no gain"),
        ("unclear", "better", "unclear"),
    ],
)
def test_labels_follow_from_the_words_of_both_comparisons(gain: str, over_control: str, label: str) -> None:
    assert classify_control(gain, over_control, 4.0, 5.0) == label


def test_a_control_that_certainly_took_part_of_the_gain_is_regularisation() -> None:
    assert classify_control("better", "unclear", 4.0, 3.0) == "regularisation"

"""Weights of ensembles: never worse than the best plan on the rows that chose them, and honest for the rows that judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.evaluation.choice.blend import MOST_MEMBERS, can_blend, crossed_blend, error_gram, greedy_weights, mix, row_parts

NUMBER = TaskSpec(name="y", kind="regression", size=1, center=(0.0,), scale=(2.0,))
BINARY = TaskSpec(name="b", kind="binary", size=1, classes=("no", "yes"))
MANY = TaskSpec(name="m", kind="multiclass", size=3, classes=("a", "b", "c"))


@settings(max_examples=40, deadline=None)
@given(plans=st.integers(1, 8), rows=st.integers(3, 60), seed=st.integers(0, 10**6))
def test_weights_are_a_convex_combination_that_beats_every_plan(plans: int, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    target = draw.normal(size=(rows, 1)).astype(np.float32)
    predictions = [target + draw.normal(scale=draw.uniform(0.1, 3), size=(rows, 1)) for _ in range(plans)]
    gram = error_gram(NUMBER, target, predictions)
    weights = greedy_weights(gram)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).sum() <= MOST_MEMBERS
    assert weights @ gram @ weights <= np.diag(gram).min() * (1 + 1e-9)
    error = np.mean(((mix(predictions, weights) - target) / 2.0) ** 2)
    assert weights @ gram @ weights == pytest.approx(error, rel=1e-4), "the Gram matrix says what the average's error is"


@pytest.mark.parametrize("task", [BINARY, MANY])
def test_probabilities_are_judged_by_the_brier_score_and_missing_labels_do_not_count(task: TaskSpec) -> None:
    draw = np.random.default_rng(0)
    classes = len(task.classes)
    target = draw.integers(0, classes, size=50)
    raw = draw.dirichlet(np.ones(classes), size=50)
    prediction = raw[:, 1] if task is BINARY else raw
    hits = (target == 1).astype(float) if task is BINARY else np.eye(classes)[target]
    per_row = ((prediction - hits).reshape(50, -1) ** 2).sum(axis=1)
    assert error_gram(task, target, [prediction])[0, 0] == pytest.approx(per_row.mean())
    unknown = target.copy()
    unknown[:20] = -1
    assert error_gram(task, unknown, [prediction])[0, 0] == pytest.approx(per_row[20:].sum() / 50)


@pytest.mark.parametrize("task", [NUMBER, MANY])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [1, 50])
def test_an_answer_that_is_no_number_is_not_taken_for_a_right_one(task: TaskSpec, wrong: float, rows: int) -> None:
    draw = np.random.default_rng(0)
    target = draw.normal(size=(50, 1)) if task is NUMBER else draw.integers(0, 3, size=50)
    fine = target + draw.normal(size=(50, 1)) if task is NUMBER else draw.dirichlet(np.ones(3), size=50)
    diverged = fine.copy()
    diverged[:rows] = wrong
    np.testing.assert_array_equal(greedy_weights(error_gram(task, target, [diverged, fine])), [0.0, 1.0])
    # Where nobody knows the truth, it does not matter either.
    target[:rows] = np.nan if task is NUMBER else -1
    assert error_gram(task, target, [diverged, fine]).max() < 1e3


def test_a_row_is_answered_with_weights_that_its_label_took_no_part_in() -> None:
    """Plans of pure noise: weights that had seen a row's label would look better than chance on it."""
    draw = np.random.default_rng(1)
    gains = []
    for _ in range(30):
        target = draw.normal(size=(40, 1)).astype(np.float32)
        predictions = [draw.normal(size=(40, 1)) for _ in range(6)]
        rows = np.arange(40)
        weights, found = crossed_blend(
            NUMBER, target, rows, predictions, {"own": (rows, predictions), "other": (rows + 40, predictions)}, row_parts(80)
        )
        seen, honest = (np.mean((one - target) ** 2) for one in (mix(predictions, weights), found["own"]))
        gains.append(honest - seen)
        assert np.array_equal(found["other"], mix(predictions, weights)), "rows that chose nothing get the weights of all"
    assert np.mean(gains) > 0.02


def test_rows_of_a_group_are_answered_with_weights_that_none_of_them_took_part_in() -> None:
    """Eight copies of each row: where copies are in several parts, weights have seen what they are to answer."""
    draw = np.random.default_rng(2)
    groups, gains = np.repeat(np.arange(20), 8), []
    for _ in range(20):
        target = draw.normal(size=(20, 1)).astype(np.float32)[groups]
        predictions = [draw.normal(size=(20, 1))[groups] for _ in range(6)]
        rows = np.arange(160)
        errors = []
        for parts in (row_parts(160), row_parts(160, groups)):
            _, found = crossed_blend(NUMBER, target, rows, predictions, {"own": (rows, predictions)}, parts)
            errors.append(np.mean((found["own"] - target) ** 2))
        gains.append(errors[1] - errors[0])
    assert np.mean(gains) > 0.02, "scores by rows alone flatter"


def test_what_cannot_be_averaged_is_said() -> None:
    assert can_blend(NUMBER, np.zeros((3, 1), dtype=np.float32))
    depth = TaskSpec(name="d", kind="regression", size=1, positions="pixels", center=(0.0,), scale=(1.0,))
    assert not can_blend(depth, np.zeros((3, 1, 4, 4), dtype=np.float32))

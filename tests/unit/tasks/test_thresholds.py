"""Thresholds of yes-or-no questions: labels, answers, metrics and words follow them."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.diagnostics import diagnose_task
from graftwork.evaluation.metrics import score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.thresholds import chosen_class, says_yes, with_thresholds

LATE = with_thresholds(TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")), [0.3])
TAGS = with_thresholds(TaskSpec(name="tags", kind="multilabel", size=2, classes=("a", "b")), [0.3, 0.8])
SHARES = np.array([0.2, 0.3, 0.4, 0.9], dtype=np.float32)


def test_a_row_is_answered_with_yes_above_the_threshold() -> None:
    kind = task_kind(LATE)
    assert kind.table(LATE, SHARES)["late"].tolist() == ["no", "no", "yes", "yes"]
    assert kind.table(LATE, SHARES)["late_probability"] == pytest.approx([0.8, 0.7, 0.4, 0.9])
    assert [answer["value"] for answer in kind.answers(LATE, SHARES)] == ["no", "no", "yes", "yes"]
    assert kind.describe(LATE, SHARES[2], is_prediction=True) == "yes (40 %)"
    assert kind.is_right(LATE, np.array(1), SHARES[2]) is True
    target = np.array([0, 1, 1, 1])
    assert score_task(LATE, target, SHARES, ["accuracy"])["accuracy"] == 0.75
    assert diagnose_task(LATE, target, SHARES)["right"] == 3


def test_each_label_has_its_own_threshold() -> None:
    kind, shares = task_kind(TAGS), np.array([[0.4, 0.7], [0.2, 0.9]], dtype=np.float32)
    assert [answer["value"] for answer in kind.answers(TAGS, shares)] == [["a"], ["b"]]
    assert [kind.describe(TAGS, row, is_prediction=True) for row in shares] == ["a", "b"]
    assert kind.is_right(TAGS, np.array([1.0, 0.0]), shares[0]) is True
    assert score_task(TAGS, np.array([[1, 0], [0, 1]], dtype=np.float32), shares, ["f1_macro"])["f1_macro"] == 1.0
    # What is known is not a probability.
    assert kind.describe(TAGS, np.array([1.0, 0.0]), is_prediction=False) == "a"


@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
def test_of_several_classes_the_largest_multiple_of_its_threshold_is_chosen(kind: str) -> None:
    plain = TaskSpec(name="size", kind=kind, size=3, classes=("s", "m", "l"))
    spec, shares = with_thresholds(plain, [0.6, 0.3, 0.1]), np.array([[0.6, 0.2, 0.2], [0.7, 0.2, 0.1]], dtype=np.float32)
    known = task_kind(spec)
    assert known.table(spec, shares)["size"].tolist() == ["l", "s"]
    assert known.table(spec, shares)["size_probability"] == pytest.approx([0.2, 0.7])
    assert [answer["value"] for answer in known.answers(spec, shares)] == ["l", "s"]
    assert known.describe(spec, shares[0], is_prediction=True) == "l (20 %)"
    assert known.is_right(spec, np.array(2), shares[0]) is True
    assert score_task(spec, np.array([2, 0]), shares, ["accuracy"])["accuracy"] == 1.0
    assert diagnose_task(spec, np.array([2, 0]), shares)["right"] == 2
    assert chosen_class(plain, shares).tolist() == [0, 0]
    with pytest.raises(ConfigError, match="list of 3 numbers between 0 and 1"):
        with_thresholds(plain, [0.5, 0.5])


def test_two_classes_with_thresholds_are_a_binary_task_with_one() -> None:
    shares = np.random.default_rng(0).random(200)
    spec = with_thresholds(TaskSpec(name="late", kind="multiclass", size=2), [0.7, 0.3])
    chosen = chosen_class(spec, np.stack([1 - shares, shares], axis=1))
    assert (chosen == says_yes(LATE, shares)).all()


def test_without_thresholds_it_is_one_half_and_nan_is_no() -> None:
    plain = TaskSpec(name="late", kind="binary", size=1)
    assert says_yes(plain, np.array([0.5, 0.51, np.nan])).tolist() == [False, True, False]
    assert with_thresholds(plain, None) is plain
    assert with_thresholds(plain, []) is plain


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.2, 0.3], ["x"]])
def test_thresholds_that_do_not_fit_are_refused(values) -> None:
    with pytest.raises((ConfigError, ValueError)):
        with_thresholds(TaskSpec(name="late", kind="binary", size=1), values)

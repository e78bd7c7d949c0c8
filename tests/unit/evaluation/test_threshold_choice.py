"""Thresholds that serve the metric: found where they help, one half where nothing is clearly better."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import score_task
from graftwork.evaluation.threshold_choice import kept_thresholds, needs_thresholds
from graftwork.tasks.thresholds import with_thresholds


def rare(rows: int, seed: int = 0):
    """A rare answer whose probabilities are right."""
    generator = np.random.default_rng(seed)
    scores = 1.5 * generator.normal(size=rows) - 2.5
    probability = 1 / (1 + np.exp(-scores))
    return (generator.random(rows) < probability).astype(np.int64), probability.astype(np.float32)


def task(metric: str, kind: str = "binary", size: int = 1) -> TaskSpec:
    return TaskSpec(name="sold", kind=kind, size=size, metric=metric)


def test_balanced_accuracy_of_a_rare_answer_wants_a_low_threshold() -> None:
    spec = task("balanced_accuracy")
    truth, found = rare(3000)
    chosen = kept_thresholds(spec, truth, found, np.arange(3000))
    assert chosen is not None
    assert chosen.why_not == ""
    (threshold,) = chosen.thresholds
    assert threshold == pytest.approx(truth.mean(), abs=0.06), "the share of the answer, where probabilities are right"
    fresh, again = rare(20_000, seed=1)
    plain = score_task(spec, fresh, again, ["balanced_accuracy"])["balanced_accuracy"]
    better = score_task(with_thresholds(spec, chosen.thresholds), fresh, again, ["balanced_accuracy"])["balanced_accuracy"]
    assert better > plain + 0.1
    assert chosen.score == pytest.approx((plain, better), abs=0.04), "what was said of it holds on new rows"


def test_accuracy_keeps_one_half_where_probabilities_are_right() -> None:
    truth, found = rare(2000)
    chosen = kept_thresholds(task("accuracy"), truth, found, np.arange(2000))
    assert chosen is not None
    assert chosen.thresholds == ()
    assert chosen.score[0] == chosen.score[1]
    assert chosen.why_not == "no other threshold was clearly better on other rows"


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "log_loss", ""])
def test_metrics_of_order_and_probability_need_none(metric) -> None:
    spec = task(metric)
    assert not needs_thresholds(spec)
    assert kept_thresholds(spec, *rare(500), np.arange(500)) is None


def rare_classes(rows: int, seed: int = 0):
    """Three classes, the later the rarer, whose probabilities are right."""
    generator = np.random.default_rng(seed)
    scores = 1.2 * generator.normal(size=(rows, 3)) + np.array([0.0, -1.5, -3.0])
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return (generator.random((rows, 1)) > shares.cumsum(axis=1)[:, :2]).sum(axis=1), shares.astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "kind"), [("balanced_accuracy", "multiclass"), ("f1_macro", "multiclass"), ("f1_macro", "ordinal")]
)
def test_metrics_that_count_classes_alike_want_rare_classes_more_often(metric: str, kind: str) -> None:
    spec = task(metric, kind, 3)
    chosen = kept_thresholds(spec, *rare_classes(3000), np.arange(3000))
    assert chosen is not None
    assert chosen.of_classes
    assert chosen.why_not == ""
    first, second, third = chosen.thresholds
    assert first > second > third
    assert sum(chosen.thresholds) == pytest.approx(1.0, abs=1e-3)
    fresh, again = rare_classes(20_000, seed=1)
    plain = score_task(spec, fresh, again, [metric])[metric]
    better = score_task(with_thresholds(spec, chosen.thresholds), fresh, again, [metric])[metric]
    assert better > plain + (0.1 if metric == "balanced_accuracy" else 0.02)
    assert chosen.score == pytest.approx((plain, better), abs=0.04), "what was said of it holds on new rows"
    if metric == "balanced_accuracy":
        frequency = np.bincount(fresh) / len(fresh)
        best = score_task(with_thresholds(spec, frequency.tolist()), fresh, again, [metric])[metric]
        assert better > best - 0.02, "close to the best that there is, where probabilities are right"


def test_classes_keep_the_most_probable_one_where_nothing_is_clearly_better() -> None:
    generator = np.random.default_rng(3)
    shares = generator.dirichlet(np.ones(3), size=1500).astype(np.float32)
    truth = (generator.random((1500, 1)) > shares.cumsum(axis=1)[:, :2]).sum(axis=1)
    chosen = kept_thresholds(task("balanced_accuracy", "multiclass", 3), truth, shares, np.arange(1500))
    assert chosen is not None
    assert chosen.thresholds == ()
    few = kept_thresholds(task("f1_macro", "multiclass", 3), *rare_classes(30), np.arange(30))
    assert few is not None
    assert few.thresholds == ()


def test_of_classes_that_nearly_never_occur_nothing_is_learned() -> None:
    truth, shares = rare_classes(2000)
    wide = np.concatenate([shares, np.full((2000, 2), 1e-5, dtype=np.float32)], axis=1)
    truth[:3] = 3
    chosen = kept_thresholds(task("balanced_accuracy", "multiclass", 5), truth, wide, np.arange(2000))
    assert chosen is not None
    assert chosen.thresholds[3] == pytest.approx(chosen.thresholds[4])
    assert chosen.thresholds[4] > 0.1 * chosen.thresholds[2]


def test_other_kinds_need_none() -> None:
    assert not needs_thresholds(task("log_loss", "multiclass", 3))
    assert not needs_thresholds(task("", "ordinal", 3))
    assert not needs_thresholds(task("accuracy", "multiclass", 3))
    assert not needs_thresholds(TaskSpec(name="size", kind="regression", size=1))


def test_on_few_rows_one_half_is_kept() -> None:
    assert [kept_thresholds(task("f1_macro"), *rare(30, seed), np.arange(30)).thresholds for seed in range(3)] == [()] * 3
    kept = sum(bool(kept_thresholds(task("accuracy"), *rare(80, seed), np.arange(80)).thresholds) for seed in range(12))
    assert kept <= 2


def test_each_label_has_its_own_and_too_rare_ones_keep_one_half() -> None:
    spec = task("f1_macro", "multilabel", 3)
    columns = [rare(2000, seed) for seed in range(2)]
    often = np.random.default_rng(9).random(2000)
    truth = np.stack([columns[0][0], columns[1][0], np.zeros(2000)], axis=1).astype(np.float32)
    truth[:5, 2] = 1
    truth[7, 0] = np.nan
    found = np.stack([columns[0][1], columns[1][1] ** 2, often], axis=1).astype(np.float32)
    chosen = kept_thresholds(spec, truth, found, np.arange(2000))
    assert chosen is not None
    first, second, third = chosen.thresholds
    assert second < first < 0.45
    assert third == 0.5
    assert chosen.score[1] > chosen.score[0]


def test_thresholds_that_the_task_has_do_not_count() -> None:
    truth, found = rare(2000)
    plain = kept_thresholds(task("f1_macro"), truth, found, np.arange(2000))
    assert plain == kept_thresholds(with_thresholds(task("f1_macro"), [0.9]), truth, found, np.arange(2000))


@pytest.mark.parametrize("form", ["rows", "column", "classes"])
def test_rows_are_decided_by_thresholds_that_others_chose(form: str) -> None:
    truth, found = rare(400)
    found[7] = np.nan
    spec = task("balanced_accuracy") if form != "classes" else task("balanced_accuracy", "multiclass", 2)
    answers = {"rows": found, "column": found[:, None], "classes": np.stack([1 - found, found], axis=1)}[form]
    chosen = kept_thresholds(spec, truth, answers, np.arange(400))
    assert chosen is not None
    assert chosen.thresholds
    assert chosen.decided is not None
    assert chosen.decided.shape == answers.shape
    known = np.arange(400) != 7
    crossed = score_task(spec, truth[known], chosen.decided[known].astype(np.float32), ["balanced_accuracy"])["balanced_accuracy"]
    assert crossed == pytest.approx(chosen.score[1])
    own = score_task(with_thresholds(spec, chosen.thresholds), truth[known], answers[known], ["balanced_accuracy"])
    assert crossed != pytest.approx(own["balanced_accuracy"]), "not those that these rows chose"


def test_without_thresholds_there_are_no_decisions() -> None:
    chosen = kept_thresholds(task("accuracy"), *rare(2000), np.arange(2000))
    assert chosen is not None
    assert chosen.decided is None

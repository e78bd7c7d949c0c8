"""Every metric against scikit-learn, or a loop written out, on data with missing labels."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import METRICS, default_metric, higher_is_better, metrics_of, prepare_metric, score_task

BINARY = TaskSpec(name="late", kind="binary", size=1)
MULTICLASS = TaskSpec(name="topic", kind="multiclass", size=5)
ORDINAL = TaskSpec(name="stars", kind="ordinal", size=5)
MULTILABEL = TaskSpec(name="tags", kind="multilabel", size=3)
REGRESSION = TaskSpec(name="colour", kind="regression", size=2)
DENSE_CLASSES = TaskSpec(name="parts", kind="dense_multiclass", size=3)
DENSE_VALUES = TaskSpec(name="depth", kind="dense_regression", size=1)
NORMALS = TaskSpec(name="normals", kind="dense_normals", size=3)
EDGES = TaskSpec(name="edges", kind="dense_binary", size=1)
OFFSETS = TaskSpec(name="instances", kind="dense_offsets", size=2)
ALL_TASKS = (BINARY, MULTICLASS, ORDINAL, MULTILABEL, REGRESSION, EDGES, DENSE_CLASSES, DENSE_VALUES, NORMALS, OFFSETS)


def make(spec: TaskSpec, rng: np.random.Generator, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return a target with missing labels and a prediction that is better than chance and has ties."""
    if spec.kind == "binary" and not spec.positions:
        target = rng.integers(-1, 2, rows)
        return target, np.clip(np.round(0.3 * target + 0.7 * rng.random(rows), 1), 0.01, 0.99)
    if spec.kind in ("multiclass", "ordinal") and not spec.positions:
        target = rng.integers(-1, spec.size, rows)
        scores = rng.random((rows, spec.size)) + 0.1
        scores[np.arange(rows), target] += 0.3
        return target, scores / scores.sum(axis=1, keepdims=True)
    if spec.kind == "multilabel":
        target = rng.integers(0, 2, (rows, spec.size)).astype(np.float32)
        prediction = np.round(0.4 * target + 0.59 * rng.random((rows, spec.size)), 2)
        target[rng.random(target.shape) < 0.2] = np.nan
        return target, prediction
    if spec.kind == "regression" and not spec.positions:
        target = rng.normal(2000, 3, (rows, spec.size)).astype(np.float32)
        prediction = target + rng.normal(0, 2, target.shape)
        target[rng.random(target.shape) < 0.2] = np.nan
        return target, prediction
    if spec.kind == "binary":
        target = rng.integers(-1, 2, (rows, 4, 5))
        return target, np.round(0.3 * (target == 1) + 0.7 * rng.random(target.shape), 2)[:, None]
    if spec.kind == "multiclass":
        return rng.integers(-1, spec.size, (rows, 4, 5)), rng.random((rows, spec.size, 4, 5))
    target = rng.normal(size=(rows, spec.size, 4, 5)).astype(np.float32)
    prediction = target + rng.normal(size=target.shape)
    target[rng.random(target.shape) < 0.1] = np.nan
    return target, prediction


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_binary_metrics_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    target, prediction = make(BINARY, rng)
    found = score_task(BINARY, target, prediction)
    known = target >= 0
    truth, score = target[known], prediction[known]
    decided = (score > 0.5).astype(int)
    expected = {
        "roc_auc": reference.roc_auc_score(truth, score),
        "average_precision": reference.average_precision_score(truth, score),
        "accuracy": reference.accuracy_score(truth, decided),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, decided),
        "f1_macro": reference.f1_score(truth, decided, average="macro"),
        "log_loss": reference.log_loss(truth, score),
    }
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("spec", [MULTICLASS, ORDINAL], ids=lambda spec: spec.kind)
def test_class_metrics_agree_with_scikit_learn(spec: TaskSpec, rng: np.random.Generator) -> None:
    target, prediction = make(spec, rng)
    found = score_task(spec, target, prediction)
    known = target >= 0
    truth, decided = target[known], prediction[known].argmax(axis=1)
    expected = {
        "accuracy": reference.accuracy_score(truth, decided),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, decided),
        "f1_macro": reference.f1_score(truth, decided, average="macro"),
        "log_loss": reference.log_loss(truth, prediction[known], labels=range(spec.size)),
    }
    if spec.kind == "ordinal":
        expected["quadratic_kappa"] = reference.cohen_kappa_score(truth, decided, weights="quadratic")
        expected["class_distance"] = reference.mean_absolute_error(truth, decided)
    assert found == pytest.approx(expected, abs=1e-12)


def test_multilabel_metrics_agree_with_scikit_learn_label_by_label(rng: np.random.Generator) -> None:
    target, prediction = make(MULTILABEL, rng)
    found = score_task(MULTILABEL, target, prediction)
    known = ~np.isnan(target)
    columns = [(target[known[:, k], k], prediction[known[:, k], k]) for k in range(3)]
    assert found["mean_average_precision"] == pytest.approx(
        np.mean([reference.average_precision_score(*pair) for pair in columns])
    )
    assert found["f1_macro"] == pytest.approx(np.mean([reference.f1_score(truth, score > 0.5) for truth, score in columns]))
    assert found["log_loss"] == pytest.approx(reference.log_loss(target[known], np.clip(prediction[known], 1e-7, 1 - 1e-7)))


def test_regression_metrics_agree_with_scikit_learn_far_from_zero(rng: np.random.Generator) -> None:
    target, prediction = make(REGRESSION, rng)
    found = score_task(REGRESSION, target, prediction)
    columns = [(target[known, k], prediction[known, k]) for k in range(2) for known in [~np.isnan(target[:, k])]]
    for name, function in (
        ("rmse", reference.root_mean_squared_error),
        ("mae", reference.mean_absolute_error),
        ("r2", reference.r2_score),
    ):
        assert found[name] == pytest.approx(np.mean([function(*pair) for pair in columns]), rel=1e-6), name


def test_dense_class_metrics_agree_with_scikit_learn_over_pixels(rng: np.random.Generator) -> None:
    target, prediction = make(DENSE_CLASSES, rng)
    known = target >= 0
    truth, decided = target[known], prediction.argmax(axis=1)[known]
    for given_prediction in (prediction, prediction.argmax(axis=1)):
        found = score_task(DENSE_CLASSES, target, given_prediction)
        assert found["miou"] == pytest.approx(reference.jaccard_score(truth, decided, average="macro"))
        assert found["pixel_accuracy"] == pytest.approx(reference.accuracy_score(truth, decided))


def test_pixel_metrics_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    target, prediction = make(EDGES, rng)
    known = target >= 0
    truth, score = target[known], prediction[:, 0][known]
    decided = score > 0.5
    by_threshold = [reference.f1_score(truth, score > step / 100) for step in range(1, 100)]
    expected = {
        "ods_f1": max(by_threshold),
        "f1": reference.f1_score(truth, decided),
        "miou": reference.jaccard_score(truth, decided, average="macro"),
        "pixel_accuracy": reference.accuracy_score(truth, decided),
    }
    assert score_task(EDGES, target, prediction) == pytest.approx(expected)
    assert score_task(EDGES, target, prediction[:, 0]) == pytest.approx(expected)
    assert expected["ods_f1"] > expected["f1"] + 0.001


def test_an_edge_metric_without_edges_is_not_defined() -> None:
    nothing = np.zeros((2, 3, 3), dtype=np.int64)
    assert np.isnan(score_task(EDGES, nothing, np.zeros((2, 1, 3, 3)))["ods_f1"])
    assert score_task(EDGES, nothing, np.full((2, 1, 3, 3), 0.7))["f1"] == 0.0


def test_dense_values_agree_with_scikit_learn_over_pixels(rng: np.random.Generator) -> None:
    target, prediction = make(DENSE_VALUES, rng)
    known = ~np.isnan(target)
    found = score_task(DENSE_VALUES, target, prediction)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(target[known], prediction[known]))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(target[known], prediction[known]))


def test_angles_worked_out_by_hand() -> None:
    target = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 1.0], [np.nan, 0, 0], [0, 0, 0]]).reshape(5, 3, 1, 1)
    prediction = np.array([[5.0, 0, 0], [0, 1.0, 1.0], [0, 0, -3.0], [1, 1, 1], [1, 1, 1]]).reshape(5, 3, 1, 1)
    found = score_task(NORMALS, target, prediction)
    assert found["mean_angle"] == pytest.approx((0 + 45 + 180) / 3)
    assert found["within_11"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("spec", ALL_TASKS, ids=lambda spec: spec.kind)
def test_counts_as_weights_equal_repeated_rows(spec: TaskSpec, rng: np.random.Generator) -> None:
    target, prediction = make(spec, rng, rows=40)
    counts = rng.integers(0, 4, (3, 40))
    for metric in metrics_of(spec):
        weighted = prepare_metric(spec, target, prediction, metric)(counts.astype(float))
        repeated = [
            score_task(spec, np.repeat(target, row, 0), np.repeat(prediction, row, 0), [metric])[metric] for row in counts
        ]
        assert weighted == pytest.approx(repeated, rel=1e-6), metric


@pytest.mark.parametrize("spec", ALL_TASKS, ids=lambda spec: spec.kind)
def test_no_label_at_all_gives_nan_without_a_warning(
    spec: TaskSpec, rng: np.random.Generator, recwarn: pytest.WarningsRecorder
) -> None:
    target, prediction = make(spec, rng)
    missing = np.full_like(target, -1 if np.issubdtype(target.dtype, np.integer) else np.nan)
    assert all(np.isnan(value) for value in score_task(spec, missing, prediction).values())
    assert not recwarn.list


@pytest.mark.parametrize("spec", ALL_TASKS, ids=lambda spec: spec.kind)
def test_a_prediction_that_is_not_finite_has_no_score(spec: TaskSpec, rng: np.random.Generator) -> None:
    target, prediction = make(spec, rng)
    assert all(np.isnan(value) for value in score_task(spec, target, np.full(prediction.shape, np.nan)).values())


def test_one_class_only_leaves_ranking_and_kappa_undefined_but_not_accuracy() -> None:
    found = score_task(BINARY, np.ones(4, dtype=int), np.array([0.9, 0.8, 0.3, 0.7]))
    assert np.isnan(found["roc_auc"])
    assert found["accuracy"] == 0.75
    perfect = np.eye(5)[np.full(6, 2)]
    assert np.isnan(score_task(ORDINAL, np.full(6, 2), perfect)["quadratic_kappa"])
    assert np.isnan(score_task(REGRESSION, np.full((4, 2), 3.0), np.full((4, 2), 3.0))["r2"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(ALL_TASKS))
def test_metrics_stay_in_their_range_and_ignore_the_order_of_rows(seed: int, spec: TaskSpec) -> None:
    rng = np.random.default_rng(seed)
    target, prediction = make(spec, rng, rows=25)
    order = rng.permutation(25)
    found, shuffled = score_task(spec, target, prediction), score_task(spec, target[order], prediction[order])
    for name, value in found.items():
        assert np.isnan(value) or METRICS[name].low <= value <= METRICS[name].high
        assert shuffled[name] == pytest.approx(value, rel=1e-9, nan_ok=True)


def test_primary_metric_comes_first_and_can_be_named() -> None:
    assert [default_metric(spec) for spec in ALL_TASKS] == [
        "roc_auc",
        "accuracy",
        "quadratic_kappa",
        "mean_average_precision",
        "rmse",
        "ods_f1",
        "miou",
        "mae",
        "mean_angle",
        "mae",
    ]
    named = TaskSpec(name="price", kind="regression", size=1, metric="r2")
    assert metrics_of(named) == ("r2", "rmse", "mae")
    assert higher_is_better("r2")
    assert not higher_is_better("rmse")


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'acuracy'. Did you mean 'accuracy'\?"):
        higher_is_better("acuracy")
    with pytest.raises(ConfigError, match="metric 'rmse' cannot judge a binary task. Choose one of: roc_auc"):
        default_metric(TaskSpec(name="late", kind="binary", size=1, metric="rmse"))


def test_wrong_shape_is_named() -> None:
    with pytest.raises(DataError, match=r"'topic' \(multiclass\): the prediction must have shape \[3, 5\]; got \[3, 4\]"):
        score_task(MULTICLASS, np.zeros(3, dtype=int), np.zeros((3, 4)))


def test_probabilities_of_zero_and_one_cost_a_finite_log_loss() -> None:
    assert score_task(BINARY, np.array([1, 0]), np.array([0.0, 1.0]))["log_loss"] == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize("spec", ALL_TASKS, ids=lambda spec: spec.kind)
def test_no_row_at_all_gives_nan_as_well(spec: TaskSpec, rng: np.random.Generator, recwarn: pytest.WarningsRecorder) -> None:
    target, prediction = make(spec, rng)
    assert all(np.isnan(value) for value in score_task(spec, target[:0], prediction[:0]).values())
    assert not recwarn.list


def test_scores_of_different_models_are_no_one_order() -> None:
    spec = BINARY
    generator = np.random.default_rng(0)
    target, parts = (generator.random(200) < 0.3).astype(np.int64), np.arange(200) % 5
    target[::11] = -1
    once = np.ones((1, 200))
    # What the most frequent answer of all other rows is, falls where positives are many: across folds it orders rows wrongly.
    shares = np.array([(target[(parts != part) & (target >= 0)]).mean() for part in range(5)])
    constant = shares[parts]
    assert prepare_metric(spec, target, constant, "roc_auc")(once)[0] < 0.5
    assert prepare_metric(spec, target, constant, "roc_auc", parts=parts)(once)[0] == 0.5
    scores = np.clip(0.3 * target + generator.random(200) * 0.7, 0, 1) * (1 + parts)
    scores = scores / scores.max()
    for name, judge in (("roc_auc", reference.roc_auc_score), ("average_precision", reference.average_precision_score)):
        of_folds = [
            (judge(target[own], scores[own]), own.sum()) for own in ((parts == part) & (target >= 0) for part in range(5))
        ]
        expected = np.average([value for value, _ in of_folds], weights=[rows for _, rows in of_folds])
        assert prepare_metric(spec, target, scores, name, parts=parts)(once)[0] == pytest.approx(expected, abs=1e-12)
    # Errors of single rows add up whoever answered them.
    loss = [prepare_metric(spec, target, scores, "log_loss", parts=given)(once)[0] for given in (None, parts)]
    assert loss[0] == loss[1]


def test_folds_without_a_positive_row_say_nothing_and_diverged_models_have_no_score() -> None:
    spec = BINARY
    target, parts = np.array([0, 0, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 1, 1])
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.6, 0.5])
    once = np.ones((1, 6))
    assert prepare_metric(spec, target, scores, "roc_auc", parts=parts)(once)[0] == 0.75
    assert np.isnan(prepare_metric(spec, np.zeros(6, np.int64), scores, "roc_auc", parts=parts)(once)[0])
    scores[0] = np.nan
    assert np.isnan(prepare_metric(spec, target, scores, "roc_auc", parts=parts)(once)[0])

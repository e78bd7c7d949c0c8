"""Linear models: what scikit-learn finds with the same settings, chosen columns, shared directions, missing labels and classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.linear_model import LogisticRegression, Ridge

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.domains.tabular.linear import LinearLearner
from graftwork.domains.tabular.linear_fits import RidgePath, choose_ridge, fit_logistic, log_losses, logistic_losses
from graftwork.domains.tabular.linear_joint import JointLinearLearner
from graftwork.domains.tabular.smooth_design import SmoothDesign

LEARNERS = [LinearLearner, JointLinearLearner]
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 5))
Y = X @ DRAW.normal(size=(5, 2)) + 0.5 * DRAW.normal(size=(60, 2))


def trained(learner: type, suite: Suite, folder: Path) -> Any:
    built = learner(context_of(suite, folder))
    built.train(1)
    return built


def facts(learner: Any, folder: Path) -> dict[str, Any]:
    learner.save(folder / "saved")
    return dict(json.loads((folder / "saved" / "model.json").read_text())["facts"])


@pytest.mark.parametrize("rows", [60, 4])
def test_ridge_is_the_librarys(rows: int) -> None:
    """With more rows than columns, and with fewer."""
    x, y = X[:rows], Y[:rows]
    weights, intercepts = RidgePath.of(x).weights(x, y, np.array([0.1, 3.0]))
    for place, penalty in enumerate([0.1, 3.0]):
        model = Ridge(penalty * rows).fit(x, y[:, place])
        np.testing.assert_allclose(weights[:, place], model.coef_, atol=1e-8)
        np.testing.assert_allclose(intercepts[place], model.intercept_, atol=1e-8)


def test_the_penalty_follows_the_noise() -> None:
    folds = [(np.flatnonzero(np.arange(60) % 5 != fold), np.flatnonzero(np.arange(60) % 5 == fold)) for fold in range(5)]
    exact, noise = X @ np.ones((5, 1)), DRAW.normal(size=(60, 1))
    penalties, errors = choose_ridge(X, np.concatenate([exact, noise], axis=1), folds)
    assert penalties[0] < 1e-5
    assert penalties[1] > 0.3
    assert errors[0] < 1e-6
    assert errors[1] > 0.5


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_regression_is_the_librarys(num_classes: int) -> None:
    y = np.digitize(Y[:, 0], [0, 1][: num_classes - 1])
    weights, intercepts = fit_logistic(X, y, num_classes, 0.7)
    model = LogisticRegression(C=0.7, max_iter=300).fit(X, y)
    expected = model.predict_proba(X)[np.arange(60), y]
    np.testing.assert_allclose(np.exp(-log_losses(X, y, weights, intercepts)), expected, atol=1e-6)


@pytest.mark.parametrize("present", [[0, 1, 3], [1, 3], [2]])
def test_absent_classes_are_unlikely_and_the_others_as_without_them(present: list[int]) -> None:
    y = np.array(present)[np.digitize(Y[:, 0], [0, 1][: len(present) - 1])]
    weights, intercepts = fit_logistic(X, y, 4, 1.0)
    assert weights.shape == (5, 4)
    scores = X @ weights + intercepts
    chance = np.exp(scores - scores.max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    absent = [index for index in range(4) if index not in present]
    assert chance[:, absent].sum(axis=1).max() < 0.02
    if len(present) > 1:
        expected = LogisticRegression().fit(X, y).predict_proba(X)
        np.testing.assert_allclose(chance[:, present], expected, atol=0.01)


def test_losses_of_a_path_end_where_they_rise() -> None:
    y = DRAW.integers(0, 2, 60)
    folds = [(np.arange(30), np.arange(30, 60))]
    losses = logistic_losses(np.concatenate([X, DRAW.normal(size=(60, 40))], axis=1), y, 2, folds)
    assert np.isfinite(losses[0])
    assert losses[-1] == np.inf
    assert losses.argmin() <= 2


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, learner: type, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    built = trained(learner, suite, tmp_path)
    built.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = built.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        assert found.shape == expected[name].shape
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4


@pytest.mark.parametrize("learner", LEARNERS)
def test_lines_are_found_and_go_on_beyond_the_training_rows(tmp_path: Path, learner: type) -> None:
    suite = number_suite(X, X @ np.ones((5, 2)) + 7.0)
    found = trained(learner, suite, tmp_path).predict(np.arange(1), inputs={"numeric": np.full((1, 5), 4.0, np.float32)})
    np.testing.assert_allclose(found["y0"], 27.0, atol=0.05)


def test_skewed_columns_are_bent_and_straight_ones_are_not(tmp_path: Path) -> None:
    words = []
    for x in (X, np.exp(2.5 * X)):
        learner = trained(LinearLearner, number_suite(x, X @ np.ones((5, 1))), tmp_path)
        words.append(facts(learner, tmp_path)["settings by target"]["0"]["numbers"])
    assert words == ["plain", "bent"]


def test_targets_of_few_rows_gain_from_shared_directions(tmp_path: Path) -> None:
    """Many targets that are one direction of many columns, each with few labels on rows of its own."""
    draw = np.random.default_rng(1)
    x, direction = draw.normal(size=(600, 20)), draw.normal(size=20) / np.sqrt(20)
    slopes = draw.uniform(0.5, 1.5, 12)
    truth = np.outer(x @ direction, slopes)
    seen = truth + 0.5 * draw.normal(size=truth.shape)
    seen[np.arange(600)[:, None] % 12 != np.arange(12)] = np.nan
    suite = number_suite(x, seen, train=0.6)
    errors = []
    for learner in LEARNERS:
        found = trained(learner, suite, tmp_path).predict(np.arange(360, 600))
        errors.append(np.mean([np.square(found[f"y{place}"][:, 0] - truth[360:, place]).mean() for place in range(12)]))
    assert errors[1] < 0.5 * errors[0]


def test_unrelated_targets_keep_their_own_weights(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    x = draw.normal(size=(300, 8))
    truth = x @ np.linalg.qr(draw.normal(size=(8, 8)))[0][:, :4]
    suite = number_suite(x, truth + 0.3 * draw.normal(size=truth.shape))
    learner = trained(JointLinearLearner, suite, tmp_path)
    found = facts(learner, tmp_path)
    assert found["directions"] == 4 or found["weights of their own"]
    gap = learner.predict(np.arange(210, 300))["y2"][:, 0] - truth[210:, 2]
    assert np.square(gap).mean() < 0.02


@pytest.mark.parametrize("learner", LEARNERS)
def test_one_class_only_is_learned_without_certainty(tmp_path: Path, learner: type) -> None:
    suite = number_suite(X, Y)
    suite = replace(
        suite,
        tasks=(TaskSpec(name="y0", kind="binary", size=1), TaskSpec(name="y1", kind="multiclass", size=4)),
        targets={"y0": np.ones(60, np.int64), "y1": np.full(60, 2)},
    )
    found = trained(learner, suite, tmp_path).predict(np.arange(60))
    assert found["y0"].min() > 0.9
    assert found["y0"].max() < 1.0
    assert (found["y1"].argmax(axis=1) == 2).all()
    assert found["y1"].min() > 0


@pytest.mark.parametrize("learner", LEARNERS)
def test_wide_tables_keep_the_columns_that_matter(tmp_path: Path, learner: type) -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(120, 1500))
    suite = number_suite(x, 5.0 * x[:, [1400]] + 0.1 * draw.normal(size=(120, 1)), train=0.8)
    built = trained(learner, suite, tmp_path)
    kept = SmoothDesign.of_suite(suite, built.blocks).numbers
    assert len(kept) == 1000
    assert 1400 in kept
    assert built.ledger().parameters_stored <= 2001


@pytest.mark.parametrize("rows", [3, 5])
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_few_rows_suffice(tmp_path: Path, learner: type, rows: int) -> None:
    suite = number_suite(X[:rows], Y[:rows], train=0.67)
    assert np.isfinite(trained(learner, suite, tmp_path).predict(np.arange(rows))["y1"]).all()

"""Multi-task lasso: scikit-learn's solution, columns that serve all targets, classes, missing labels, graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.linear_model import MultiTaskLasso, MultiTaskLassoCV

from graftwork.core.files import read_json
from graftwork.core.records import TaskSpec
from graftwork.domains.tabular.lasso_joint import PENALTIES, JointLassoLearner, lasso_path
from graftwork.domains.tabular.linear import LinearLearner


def fitted(suite, folder: Path, learner: type = JointLassoLearner):
    built = learner(context_of(suite, folder))
    built.train(1)
    return built


def sparse(rows: int = 120, columns: int = 40, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four targets on the same three of many columns, with weights of their own."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, columns))
    weights = np.zeros((columns, 4))
    weights[:3] = draw.normal(size=(3, 4)) + np.sign(draw.normal(size=(3, 4)))
    return x, x @ weights + noise * draw.normal(size=(rows, 4))


def test_the_path_is_that_of_the_library() -> None:
    x, y = sparse()
    x[:, 1] *= 7.0
    mean, scale = x.mean(axis=0), x.std(axis=0)
    largest = np.linalg.norm(((x - mean) / scale).T @ (y - y.mean(axis=0)), axis=1).max() / len(x)
    for share, (weights, level) in zip((0.5, 0.1, 0.02), lasso_path(x, y, (0.5, 0.1, 0.02)), strict=True):
        model = MultiTaskLasso(alpha=share * largest, tol=1e-8, max_iter=10_000).fit((x - mean) / scale, y)
        np.testing.assert_allclose(weights, model.coef_.T / scale[:, None], atol=2e-3)
        np.testing.assert_allclose(x @ weights + level, model.predict((x - mean) / scale), atol=2e-2)
    above = next(lasso_path(x, y, (1.001,)))[0]
    assert not above.any()


def test_it_predicts_as_well_as_the_library_that_chooses_its_own_penalty(tmp_path: Path) -> None:
    x, y = sparse(rows=300)
    suite = number_suite(x, y)
    learner, rows, train = fitted(suite, tmp_path), np.arange(255, 300), np.arange(210)
    ours = np.concatenate([learner.predict(rows)[task.name] for task in suite.tasks], axis=1)
    deviation = y[train].std(axis=0)
    theirs = MultiTaskLassoCV(cv=3).fit(x[train], y[train] / deviation).predict(x[rows]) * deviation
    error = [float(np.square((found - y[rows]) / deviation).mean()) for found in (ours, theirs)]
    assert error[0] < 1.03 * error[1]


def test_columns_that_serve_all_targets_are_found_where_rows_are_few(tmp_path: Path) -> None:
    x, y = sparse(rows=100, columns=60, noise=2.0)
    suite = number_suite(x, y, train=0.5)
    rows = np.arange(75, 100)
    errors = []
    for kind in (LinearLearner, JointLassoLearner):
        found = fitted(suite, tmp_path, kind).predict(rows)
        errors.append(np.mean([np.square(found[f"y{index}"][:, 0] - y[rows, index]).mean() for index in range(4)]))
    assert errors[1] < 0.7 * errors[0]
    learner = fitted(suite, tmp_path)
    used = np.any(learner._state["weights"] != 0, axis=1)
    assert used[:3].all() or used.sum() >= 3
    for column in np.flatnonzero(used):
        assert (learner._state["weights"][column] != 0).all(), "a column serves all targets or none"


def test_labels_that_are_missing_do_not_judge(tmp_path: Path) -> None:
    x, y = sparse(rows=400)
    gaps = y.copy()
    gaps[50:, 3] = np.nan
    suite = number_suite(x, gaps)
    rows = np.arange(340, 400)
    found = [fitted(suite, tmp_path, kind).predict(rows)["y3"][:, 0] for kind in (LinearLearner, JointLassoLearner)]
    alone, joint = (float(np.square(one - y[rows, 3]).mean()) for one in found)
    # Targets that are known on all rows say which columns count: 50 labels are enough then (noise of variance 1).
    assert joint < 0.9 * alone
    assert joint < 1.5


def test_nothing_to_learn_gives_means_and_shares(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(200, 10))
    suite = number_suite(x, draw.normal(size=(200, 2)))
    flag = (draw.random(200) < 0.25).astype(np.int64)
    suite = replace(
        suite,
        tasks=(*suite.tasks, TaskSpec(name="flag", kind="binary", size=1, classes=("no", "yes"))),
        targets={**suite.targets, "flag": flag},
    )
    found = fitted(suite, tmp_path).predict(np.arange(170, 200))
    assert found["y0"].std() < 0.3
    assert abs(float(found["flag"].mean()) - 0.25) < 0.12


@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    learner = fitted(suite, tmp_path)
    learner.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = learner.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4
    for name in ("late", "kind"):
        assert ((expected[name] > 0) & (expected[name] < 1)).all()
    learner.save(tmp_path / "saved")
    facts = read_json(tmp_path / "saved" / "model.json")["facts"]
    assert 0 < facts["columns"] <= facts["of"]
    assert facts["penalty"] in PENALTIES

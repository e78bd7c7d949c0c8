"""Chains of targets: the order, what later forests learn from earlier ones, missing labels, graphs, and scikit-learn's chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.multioutput import RegressorChain

from graftwork.domains.tabular.forests import ExtraTreesLearner
from graftwork.domains.tabular.ordered_chain import OrderedChainLearner


def fitted(suite, folder: Path, trees: int = 40) -> OrderedChainLearner:
    learner = OrderedChainLearner(context_of(suite, folder), num_trees=trees)
    learner.train(1)
    return learner


@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    learner = fitted(suite, tmp_path, 9)
    learner.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = learner.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4


def test_the_surest_target_comes_first_and_each_forest_sees_those_before_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 4))
    y = np.stack([draw.normal(size=300), x[:, 0] + 0.5 * draw.normal(size=300), x[:, 0]], axis=1)
    learner = fitted(number_suite(x, y), tmp_path)
    state = learner._state
    assert state["order"].tolist() == [2, 1, 0]
    widest = [int(state[f"{index}.feature"].max()) for index in state["order"].tolist()]
    # Columns 0 to 3 are the table's; 4 and 5 are what earlier forests said.
    assert widest == [3, 4, 5]


def test_predictions_are_those_of_the_links_one_by_one(tmp_path: Path) -> None:
    """scikit-learn's RegressorChain around the same forests, in the same order, predicts the same."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(200, 3)).astype(np.float32)
    y = np.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 2], x[:, 1] ** 2], axis=1)
    suite = number_suite(x, y)
    learner = fitted(suite, tmp_path, 15)
    order = learner._state["order"].tolist()

    class Link(BaseEstimator):
        def __init__(self, index: int) -> None:
            self.forest = learner._forest(learner._state, f"{index}.")

        def predict(self, wide: np.ndarray) -> np.ndarray:
            return self.forest.predict(wide.astype(np.float32))[:, 0]

    chain = RegressorChain(LinearRegression(), order=order).fit(x[:50], y[:50])
    chain.estimators_ = [Link(index) for index in order]
    theirs = chain.predict(x[170:])
    found = learner.predict(np.arange(170, 200))
    for index, task in enumerate(suite.tasks):
        expected = task.center[0] + task.scale[0] * theirs[:, index]
        np.testing.assert_allclose(found[task.name][:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_target_with_few_labels_learns_from_another_that_has_many(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(800, 6))
    first = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 3] ** 2
    y = np.stack([first, np.square(first)], axis=1)
    gaps = y.copy()
    gaps[60:, 1] = np.nan
    suite = number_suite(x, gaps)
    rows = np.arange(680, 800)
    errors = []
    for learner in (ExtraTreesLearner, OrderedChainLearner):
        built = learner(context_of(suite, tmp_path), num_trees=60)
        built.train(1)
        errors.append(float(np.square(built.predict(rows)["y1"][:, 0] - y[rows, 1]).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_what_is_handed_on_is_not_of_forests_that_saw_the_rows(tmp_path: Path) -> None:
    """Labels without relation to the columns must not be found again: later forests would trust what cannot be known."""
    draw = np.random.default_rng(1)
    noise = draw.normal(size=(300, 1))
    suite = number_suite(draw.normal(size=(300, 3)), np.concatenate([noise, noise], axis=1))
    found = fitted(suite, tmp_path).predict(suite.splits["test"])
    # In training the two are equal: with predictions of forests that saw the rows, the second would copy the first.
    assert max(found["y0"].std(), found["y1"].std()) < 0.6

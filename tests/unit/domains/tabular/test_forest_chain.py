"""Chains of forests: what second forests learn from first ones, missing labels, graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite

from graftwork.domains.tabular.forest_chain import ForestChainLearner
from graftwork.domains.tabular.forests import ExtraTreesLearner


@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    learner = ForestChainLearner(context_of(suite, tmp_path), num_trees=9)
    learner.train(1)
    learner.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = learner.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4


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
    for learner in (ExtraTreesLearner, ForestChainLearner):
        built = learner(context_of(suite, tmp_path), num_trees=60)
        built.train(1)
        errors.append(float(np.square(built.predict(rows)["y1"][:, 0] - y[rows, 1]).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_first_predictions_of_training_rows_are_not_of_forests_that_saw_them(tmp_path: Path) -> None:
    """Labels without relation to the columns must not be found again: second forests would trust what cannot be known."""
    draw = np.random.default_rng(1)
    suite = number_suite(draw.normal(size=(300, 3)), draw.normal(size=(300, 2)))
    learner = ForestChainLearner(context_of(suite, tmp_path), num_trees=40)
    learner.train(1)
    assert learner.predict(suite.splits["test"])["y0"].std() < 0.6

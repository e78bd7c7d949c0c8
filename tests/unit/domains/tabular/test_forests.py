"""Forests as arrays: what scikit-learn predicts, sizes, shared trees, missing labels, graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import read_json
from graftwork.domains.tabular.forest import Forest, ForestShape, Kind, columns_looked_at, grow_forest
from graftwork.domains.tabular.forests import (
    ExtraTreesLearner,
    JointExtraTreesLearner,
    JointRandomForestLearner,
    RandomForestLearner,
    soften,
)

FACT = "trees and rows of a leaf, by forest"
LEARNERS = [ExtraTreesLearner, JointExtraTreesLearner, RandomForestLearner, JointRandomForestLearner]


def table(rows: int = 150, columns: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, columns)).astype(np.float32)
    return x, np.stack([np.sin(2 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 1]], axis=1)


@pytest.mark.parametrize(("kind", "grower"), [("extra", ExtraTreesRegressor), ("bagged", RandomForestRegressor)])
def test_arrays_predict_what_the_library_predicts(kind: Kind, grower: type) -> None:
    x, y = table()
    forest = grow_forest(kind, x, y, ForestShape(17, 2, 150), max_features=0.5, seed=4, threads=1)
    model = grower(17, max_features=0.5, min_samples_leaf=2, random_state=4).fit(x, y)
    fresh = np.random.default_rng(1).normal(size=(400, 5)).astype(np.float32)
    np.testing.assert_allclose(forest.predict(fresh), model.predict(fresh), rtol=1e-6, atol=1e-6)
    again = Forest.from_state(forest.state("a."), "a.")
    np.testing.assert_array_equal(again.predict(fresh), forest.predict(fresh))


def test_columns_of_classes_split_as_classification_trees_do() -> None:
    """The squared error of 0/1 columns is Gini impurity: with all columns looked at and no draws left both give one tree."""
    x, y = table()
    classes = np.digitize(y[:, 0], [-1, 0, 1])
    ours = RandomForestRegressor(1, bootstrap=False, random_state=0).fit(x, np.eye(4)[classes])
    theirs = RandomForestClassifier(1, bootstrap=False, max_features=1.0, random_state=0).fit(x, classes)
    assert ours.estimators_[0].tree_.node_count == theirs.estimators_[0].tree_.node_count
    np.testing.assert_allclose(ours.predict(x), theirs.predict_proba(x), atol=1e-9)


def test_the_number_of_threads_changes_nothing() -> None:
    x, y = table()
    one, two = (grow_forest("extra", x, y, ForestShape(8, 1, 150), max_features=1.0, seed=1, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.threshold, two.threshold)
    np.testing.assert_array_equal(one.values, two.values)


@pytest.mark.parametrize("kind", ["extra", "bagged"])
@pytest.mark.parametrize(
    ("rows", "outputs", "forests", "columns"),
    [(26, 1, 1, 4), (640, 3, 8, 12), (10_000, 1, 1, 12), (50_000, 1, 5, 60), (100_000, 1000, 1, 10), (100_000, 1, 200, 100)],
)
def test_size_and_work_are_bounded(kind: Kind, rows: int, outputs: int, forests: int, columns: int) -> None:
    shape = ForestShape.bounded(300, rows, outputs, forests, num_columns=columns, kind=kind)
    most_leaves = shape.num_trees * (shape.tree_rows / shape.min_rows) * forests
    assert 2 * most_leaves <= 2_000_000
    assert most_leaves * outputs <= 8_000_000
    assert 50 <= shape.num_trees <= 300
    assert shape.tree_rows <= min(rows, 20_000)
    visits = shape.num_trees * shape.tree_rows * np.log2(shape.tree_rows) * forests * columns * (1 + outputs / 4)
    assert visits <= 4e8 or shape.tree_rows == 100


def test_small_tables_get_all_trees_grown_to_the_end() -> None:
    assert ForestShape.bounded(300, 640, 1, 3, num_columns=10) == ForestShape(300, 1, 640)


def test_trees_of_many_rows_get_some_of_them() -> None:
    x, y = table(rows=600)
    few = grow_forest("extra", x, y, ForestShape(20, 1, 60), max_features=1.0, seed=0, threads=1)
    assert len(few.values) <= 20 * 60
    errors = np.square(few.predict(x) - y).mean(axis=0)
    assert (errors < 0.5 * y.var(axis=0)).all()


@pytest.mark.parametrize(("width", "looked_at"), [(1, 1), (10, 6), (400, 100), (90_000, 300)])
def test_a_split_looks_at_a_bounded_number_of_columns(width: int, looked_at: int) -> None:
    assert columns_looked_at(0.6, width) == looked_at


def test_leaves_are_larger_where_labels_are_noisy(tmp_path: Path) -> None:
    x, y = table(rows=300)
    noise = np.random.default_rng(5).normal(size=y.shape)
    sizes = []
    for targets in (y, noise):
        learner = ExtraTreesLearner(context_of(number_suite(x, targets), tmp_path), num_trees=20)
        learner.train(1)
        learner.save(tmp_path / "saved")
        sizes.append([leaf for _, leaf in read_json(tmp_path / "saved" / "model.json")["facts"][FACT]])
    assert sizes == [[1, 1], [3, 3]]


def test_nan_is_refused() -> None:
    x, y = table()
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        grow_forest("extra", x, y, ForestShape(2, 1, 150), max_features=1.0, seed=0, threads=1)


def test_softened_probabilities_are_never_zero_and_add_up() -> None:
    found = soften(np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]), np.array([0.5, 0.3, 0.2]), 9)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found[0], [0.95, 0.03, 0.02], rtol=1e-6)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, learner: type, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    built = learner(context_of(suite, tmp_path), num_trees=9)
    built.train(1)
    built.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = built.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        assert found.shape == expected[name].shape
        scale = suite.task(name).scale or (1.0,)
        assert np.abs((found - expected[name]) / np.asarray(scale)).max() < 1e-4
    np.testing.assert_allclose(expected["kind"].sum(axis=1), 1, rtol=1e-5)
    assert expected["kind"].min() > 0, "no class is impossible"


def test_a_tree_without_split_is_exported(tmp_path: Path) -> None:
    x, y = table(rows=40)
    y[:, 0] = 3.0
    suite = number_suite(x, y)
    learner = ExtraTreesLearner(context_of(suite, tmp_path), num_trees=3)
    learner.train(1)
    learner.export(tmp_path / "model")
    found = graph_answers(tmp_path / "model", suite, np.arange(5))
    np.testing.assert_allclose(found["y0"], 3.0)
    np.testing.assert_allclose(found["y1"], learner.predict(np.arange(5))["y1"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learner", LEARNERS)
def test_it_learns_what_there_is_to_learn(tmp_path: Path, learner: type) -> None:
    suite = mixed_suite(rows=500)
    built = learner(context_of(suite, tmp_path), num_trees=40)
    built.train(1)
    rows = suite.splits["test"]
    known = ~np.isnan(suite.targets["price"][rows, 0])
    error = built.predict(rows)["price"][known, 0] - suite.targets["price"][rows[known], 0]
    assert np.square(error).mean() < 0.35 * suite.targets["price"][rows[known], 0].var()
    late = rows[suite.targets["late"][rows] >= 0]
    assert ((built.predict(late)["late"] >= 0.5) == suite.targets["late"][late]).mean() > 0.8


def test_shared_trees_use_rows_with_some_labels_and_fill_in_the_others(tmp_path: Path) -> None:
    """Half of the rows lack the second label. What they say about the first must count, and the second is still learned."""
    x, y = table(rows=600)
    y = np.stack([y[:, 0], y[:, 0] + 0.1 * x[:, 3]], axis=1)
    suite = number_suite(x, y, train=0.8)
    gaps = suite.targets["y1"].copy()
    gaps[:420] = np.nan
    holed = suite.with_targets({"y1": gaps})
    few = replace(holed, splits={**suite.splits, "train": suite.splits["train"][420:]})
    rows = suite.splits["test"]

    def errors(data: object) -> list[float]:
        learner = JointExtraTreesLearner(context_of(data, tmp_path), num_trees=40)  # type: ignore[arg-type]
        learner.train(1)
        found = learner.predict(rows)
        return [float(np.square(found[name] - suite.targets[name][rows]).mean()) for name in ("y0", "y1")]

    with_gaps, complete_only = errors(holed), errors(few)
    assert with_gaps[0] < 0.6 * complete_only[0]
    assert with_gaps[1] < 1.05 * complete_only[1]


def test_targets_of_different_units_weigh_the_same(tmp_path: Path) -> None:
    x, y = table(rows=200)
    first = number_suite(x, y)
    second = number_suite(x, y * [1.0, 1000.0])
    found = []
    for suite in (first, second):
        learner = JointExtraTreesLearner(context_of(suite, tmp_path), num_trees=10)
        learner.train(1)
        found.append(learner.predict(np.arange(50)))
    np.testing.assert_allclose(found[0]["y0"], found[1]["y0"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(1000 * found[0]["y1"], found[1]["y1"], rtol=1e-3, atol=0.5)


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_trees must be at least 1"):
        ExtraTreesLearner(context_of(mixed_suite(), tmp_path), num_trees=0)
    with pytest.raises(ConfigError, match="max_features"):
        ExtraTreesLearner(context_of(mixed_suite(), tmp_path), max_features=0.0)

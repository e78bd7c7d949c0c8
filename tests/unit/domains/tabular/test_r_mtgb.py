"""R-MTGB against values worked out by hand, against a slow version from the formulas, and as estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_r_mtgb import NaiveRMTGB
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.suites.outlier_tasks import outlier_tasks
from graftwork.domains.tabular.r_mtgb import RobustBoosting
from graftwork.domains.tabular.r_mtgb_estimator import RMTGBClassifier, RMTGBRegressor, minority_side
from graftwork.domains.tabular.r_mtgb_forest import Blocks, RobustForest
from graftwork.domains.tabular.regression_tree import TreeShape

X = np.array([[0.0], [1.0], [0.0], [1.0]], np.float32)
Y = np.array([1.0, 3.0, 2.0, 6.0])
TASK = np.array([0, 0, 1, 1])


def boosted(blocks: Blocks, theta: list[float] | None = None, **settings: object) -> RobustBoosting:
    found = RobustBoosting(X, Y, TASK, num_tasks=2, loss="squared_error", blocks=blocks, learning_rate=0.5, **settings)  # type: ignore[arg-type]
    if theta is not None:
        found.forest.thetas[0] = np.array(theta)
    while not found.is_done:
        found.advance()
    return found


def three_tasks(loss: str, rows: int = 240, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets as the fast version takes them, targets as columns, tasks; the last task goes the other way."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4)).astype(np.float32)
    task = generator.integers(0, 3, rows)
    values = np.sin(2 * x[:, 0]) * (1 - 2 * (task == 2)) + 0.5 * x[:, 1] + 0.3 * generator.normal(size=rows)
    if loss == "squared_error":
        return x, values, values[:, None], task
    y = (values > 0).astype(np.int64) if loss == "binary" else np.digitize(values, [-0.5, 0.5])
    return x, y, np.eye(y.max() + 1)[y], task


def test_shared_then_specific_by_hand() -> None:
    found = boosted(Blocks(1, 0, 1))
    # shared leaves (1 + 2) / 2 and (3 + 6) / 2, half a step; then each task's own residuals, half a step
    assert found.training_outputs().tolist() == [[0.875, 2.625, 1.375, 4.125]]


def test_the_competing_functions_and_weights_by_hand() -> None:
    found = boosted(Blocks(0, 2, 0), [np.log(3), -np.log(3)])
    first_out, first_in = found.forest.outside[0], found.forest.inside[0]
    assert first_out.predict(X[:2])[0] == pytest.approx([0.625, 1.875])  # 0.75 * (1, 3) and 0.25 * (2, 6)
    assert first_in.predict(X[:2])[0] == pytest.approx([0.875, 2.625])
    thetas = found.forest.thetas
    assert thetas[1] == pytest.approx([np.log(3), -np.log(3)]), "both functions were zero before the first iteration"
    # task 0 then: F = (0.34375, 1.03125), g = y - F, F_out - F_in = (-0.125, -0.375), s (1 - s) = 0.1875
    slope = 0.1875 * (0.65625 * -0.125 + 1.96875 * -0.375)
    assert thetas[2][0] == pytest.approx(np.log(3) + 0.5 * slope)


def test_equal_weights_stay_equal() -> None:
    found = boosted(Blocks(0, 4, 0), [0.0, 0.0])
    np.testing.assert_allclose(found.forest.thetas, 0.0, atol=1e-15)


@pytest.mark.parametrize("loss", ["squared_error", "binary", "softmax"])
@pytest.mark.parametrize("limits", [(2, 3), (None, 3), (5, None)])
def test_number_by_number_as_the_slow_version(loss: str, limits: tuple[int | None, int | None]) -> None:
    smallest = 8  # in leaves of a few rows two splits can be equally good
    x, y, columns, task = three_tasks(loss)
    fast = RobustBoosting(
        x,
        y,
        task,
        num_tasks=3,
        loss=loss,  # type: ignore[arg-type]
        num_classes=columns.shape[1],
        blocks=Blocks(4, 6, 5),
        shape=TreeShape(*limits, smallest, 65_535),
        seed=3,
    )
    settings = {"max_leaf_nodes": limits[0], "max_depth": limits[1], "min_samples_leaf": smallest}
    slow = NaiveRMTGB((4, 6, 5), fast.forest.thetas[0].copy(), classes=loss != "squared_error", **settings)  # type: ignore[arg-type]
    expected = slow.fit(x.astype(np.float64), columns, task)
    while not fast.is_done:
        fast.advance()
    found = fast.training_outputs()
    both = np.stack([-found[0], found[0]]) if loss == "binary" else found
    np.testing.assert_allclose(both.T, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fast.forest.thetas[1:], slow.history, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fast.forest.raw(x, task), found, atol=1e-12)


def test_new_rows_are_predicted_as_by_the_slow_version() -> None:
    # whole numbers, all of which every task has: every threshold of a stump is the same
    generator = np.random.default_rng(0)
    x = generator.integers(0, 5, size=(400, 3)).astype(np.float32)
    task = np.arange(400) % 4
    y = x[:, 0] * (1 - 2 * (task == 3)) + generator.normal(size=400)
    model = RMTGBRegressor(n_iter_1st=5, n_iter_2nd=10, n_iter_3rd=5, random_state=2).fit(x, y, task)
    slow = NaiveRMTGB((5, 10, 5), model.forest_.thetas[0].copy())
    slow.fit(x.astype(np.float64), y[:, None], task)
    new, asked = generator.integers(0, 5, size=(50, 3)), generator.integers(0, 4, 50)
    np.testing.assert_allclose(model.predict(new, asked), slow.predict(new.astype(np.float64), asked, 1)[:, 0], rtol=1e-10)


@pytest.mark.parametrize(("leaves", "few", "many"), [(2, 0.0, 0.01), (8, 0.01, 0.1)])
def test_new_rows_differ_from_exact_trees_where_thresholds_are_binned(leaves: int, few: float, many: float) -> None:
    """Real numbers, as many bins as values: equal on the training rows (see above), not on new ones. A task's own tree and every
    node below the first cut between the values of the whole table, where exact trees cut between those of the node. 0.1 % and 3
    % of the rows here; more with more and deeper trees."""
    x, y, columns, task = three_tasks("squared_error")
    new, _, _, asked = three_tasks("squared_error", rows=1000, seed=2)
    limits = {"max_leaf_nodes": leaves, "max_depth": None, "min_samples_leaf": 8}
    model = RMTGBRegressor(n_iter_1st=4, n_iter_2nd=6, n_iter_3rd=5, max_bins=65_535, random_state=2, **limits).fit(x, y, task)
    slow = NaiveRMTGB((4, 6, 5), model.forest_.thetas[0].copy(), **limits)  # type: ignore[arg-type]
    slow.fit(x.astype(np.float64), columns, task)
    found, exact = model.predict(new, asked), slow.predict(new.astype(np.float64), asked, 1)[:, 0]
    share = float((np.abs(found - exact) > 1e-9).mean())
    assert few < share < many
    assert np.abs(found - exact).mean() < 0.01 * np.std(exact)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    x, y, _, task = three_tasks("squared_error", rows=90, seed=seed)
    order = np.random.default_rng(seed).permutation(90)
    asked = np.arange(90) % 3
    model = RMTGBRegressor(n_iter_1st=3, n_iter_2nd=4, n_iter_3rd=3, random_state=0)
    first, second = clone(model).fit(x, y, task), clone(model).fit(x[order], y[order], task[order])
    np.testing.assert_allclose(first.predict(x, asked), second.predict(x, asked), atol=1e-8)


def test_each_iteration_of_pooled_boosting_lowers_the_training_loss() -> None:
    x, y, _, task = three_tasks("squared_error")
    found = RobustBoosting(x, y, task, num_tasks=3, loss="squared_error", blocks=Blocks(10, 0, 10))
    losses = []
    while not found.is_done:
        found.advance()
        losses.append(np.mean((y - found.training_outputs()[0]) ** 2))
    assert np.all(np.diff(losses) < 0)


@pytest.mark.parametrize("loss", ["squared_error", "softmax"])
@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_stopping_and_going_on_changes_nothing(loss: str, subsample: float) -> None:
    x, y, columns, task = three_tasks(loss)

    def fresh() -> RobustBoosting:
        settings = {"num_classes": columns.shape[1], "blocks": Blocks(3, 4, 4), "subsample": subsample, "seed": 5}
        return RobustBoosting(x, y, task, num_tasks=3, loss=loss, shape=TreeShape(4), **settings)  # type: ignore[arg-type]

    whole = fresh()
    while not whole.is_done:
        whole.advance()
    for stop in (0, 2, 5, 9):
        part, again = fresh(), fresh()
        for _ in range(stop):
            part.advance()
        again.resume(part.forest.to_arrays())
        np.testing.assert_array_equal(part.training_outputs(), again.training_outputs())
        while not again.is_done:
            again.advance()
        np.testing.assert_array_equal(whole.training_outputs(), again.training_outputs())
    arrays = whole.forest.to_arrays()
    wrong = RobustForest(4, len(whole.training_outputs()), Blocks(3, 4, 4), 0.1)
    with pytest.raises(DataError, match="for 3 tasks"):
        wrong.fill(arrays)


def test_earlier_iterations_can_be_asked_for() -> None:
    x, y, _, task = three_tasks("squared_error")
    found = RobustBoosting(x, y, task, num_tasks=3, loss="squared_error", blocks=Blocks(2, 3, 2))
    expected = []
    while not found.is_done:
        found.advance()
        expected.append(found.training_outputs())
    for iterations, outputs in enumerate(expected, 1):
        np.testing.assert_allclose(found.forest.raw(x, task, iterations), outputs, atol=1e-12)
    every = found.forest.raw_of_all(x)
    np.testing.assert_allclose(every[task, :, np.arange(len(x))].T, expected[-1], atol=1e-12)


def test_outlier_tasks_are_found_and_do_less_harm() -> None:
    suite = outlier_tasks(train_rows=150, test_rows=200, seed=4)
    x, task = suite.inputs["numeric"], suite.raw["task"]
    y = np.nansum(np.concatenate(list(suite.targets.values()), axis=1), axis=1)
    train, test = suite.splits["train"], suite.splits["test"]
    shape = {"max_leaf_nodes": 4, "random_state": 0, "learning_rate": 0.2}
    robust = RMTGBRegressor(n_iter_1st=0, n_iter_2nd=80, n_iter_3rd=20, **shape).fit(x[train], y[train], task[train])
    pooled = RMTGBRegressor(n_iter_1st=100, n_iter_2nd=0, n_iter_3rd=0, **shape).fit(x[train], y[train])
    assert list(robust.outlier_tasks_) == suite.raw["outliers"]
    error = np.mean((robust.predict(x[test], task[test]) - y[test]) ** 2)
    assert error < 0.7 * np.mean((pooled.predict(x[test]) - y[test]) ** 2)


def test_the_minority_is_the_smaller_side() -> None:
    assert minority_side([0.9, 0.8, 0.1]).tolist() == [2]
    assert minority_side([0.1, 0.2, 0.9]).tolist() == [2]
    assert minority_side([0.9, 0.1]).tolist() == minority_side([0.7, 0.9]).tolist() == []


def test_the_task_may_be_a_named_column_and_is_no_feature() -> None:
    x, y, _, task = three_tasks("binary")
    names = np.array(["north", "south", "west"])[task]
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame.insert(1, "region", names)
    model = RMTGBClassifier(n_iter_1st=2, n_iter_2nd=3, n_iter_3rd=2, random_state=0)
    named = clone(model).set_params(task_column="region").fit(frame, y)
    given_ids = clone(model).fit(x, y, names)
    numbered = clone(model).set_params(task_column=-1).fit(np.column_stack([x, task]), y)
    assert named.n_features_in_ == numbered.n_features_in_ == 4
    assert list(named.tasks_) == ["north", "south", "west"]
    np.testing.assert_array_equal(named.predict_proba(frame), given_ids.predict_proba(x, names))
    np.testing.assert_array_equal(numbered.predict_proba(np.column_stack([x, task])), given_ids.predict_proba(x, names))


def test_probabilities_follow_from_the_scores() -> None:
    x, y, _, task = three_tasks("softmax")
    labels = np.array(["low", "middle", "high"])[y]
    model = RMTGBClassifier(n_iter_1st=5, n_iter_2nd=5, n_iter_3rd=5, random_state=0).fit(x, labels, task)
    scores, chances = model.decision_function(x, task), model.predict_proba(x, task)
    assert list(model.classes_) == ["high", "low", "middle"]
    np.testing.assert_allclose(chances, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(model.predict(x, task), model.classes_[chances.argmax(axis=1)])
    two = RMTGBClassifier(n_iter_1st=5, n_iter_2nd=5, n_iter_3rd=5, random_state=0).fit(x, y > 0, task)
    np.testing.assert_allclose(two.predict_proba(x, task)[:, 1], 1 / (1 + np.exp(-two.decision_function(x, task))))


def test_several_values_a_row_share_trees() -> None:
    x, y, _, task = three_tasks("squared_error")
    model = RMTGBRegressor(n_iter_1st=5, n_iter_2nd=5, n_iter_3rd=5, random_state=0)
    both = clone(model).fit(x, np.stack([y, 2 * y], axis=1), task).predict(x, task)
    np.testing.assert_allclose(both[:, 1], 2 * both[:, 0], rtol=1e-6)


@pytest.mark.parametrize("estimator", [RMTGBRegressor, RMTGBClassifier])
def test_scikit_learns_own_checks(estimator: type) -> None:
    model = estimator(n_iter_1st=5, n_iter_2nd=10, n_iter_3rd=15, learning_rate=0.2, random_state=0)
    failed = [found["check_name"] for found in check_estimator(model, on_fail=None, on_skip=None) if found["status"] == "failed"]
    assert not failed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_iter_1st": -1}, "at least 0"),
        ({"n_iter_1st": 0, "n_iter_2nd": 0, "n_iter_3rd": 0}, "one in total"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0; got 0.0"),
        ({"subsample": 1.5}, r"`subsample` must be in \(0, 1\]; got 1.5"),
        ({"max_leaf_nodes": 1}, "max_leaf_nodes must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RMTGBRegressor(**settings).fit(X, Y, TASK)


def test_tasks_that_cannot_be_read_are_refused() -> None:
    model = RMTGBRegressor(n_iter_1st=1, n_iter_2nd=1, n_iter_3rd=1).fit(X, Y, TASK)
    with pytest.raises(DataError, match="Unknown tasks: 7"):
        model.predict(X[:2], [0, 7])
    with pytest.raises(DataError, match="knows 2 tasks"):
        model.predict(X)
    with pytest.raises(DataError, match="one id for each of the 4 rows"):
        model.predict(X, [0])
    with pytest.raises(DataError, match="give one of them"):
        RMTGBRegressor(task_column=0).fit(X, Y, TASK)
    with pytest.raises(DataError, match="'b' is no column of X; the columns are a"):
        RMTGBRegressor(task_column="b").fit(pd.DataFrame(X, columns=["a"]), Y)
    with pytest.raises(DataError, match="needs a row; rows per task"):
        RobustBoosting(X, Y, TASK, num_tasks=3, loss="squared_error", blocks=Blocks(1, 0, 0))

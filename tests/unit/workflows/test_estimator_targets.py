"""What the estimator makes of ``y``: kinds as ``fit`` infers them, missing labels, and the conventions of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from graftwork.core.errors import DataError
from graftwork.data.reading.ingest import open_suite
from graftwork.workflows.estimator import MultiTaskEstimator
from graftwork.workflows.estimator_kinds import learned_targets
from graftwork.workflows.estimator_targets import target_columns

ROWS = 120


def frame() -> pd.DataFrame:
    """Targets of many types, all of them inferred."""
    draw = np.random.default_rng(0)
    levels = pd.CategoricalDtype(["tiny", "middle", "vast"], ordered=True)
    return pd.DataFrame(
        {
            "price": draw.normal(size=ROWS).round(3),
            "rooms": draw.integers(0, 5, ROWS),
            "visits": draw.integers(0, 5, ROWS),
            "zip": draw.choice([20095, 80331, 10115], ROWS),
            "sold": draw.random(ROWS) > 0.5,
            "colour": draw.choice(["red", "green", "blue"], ROWS),
            "grade": draw.choice(["low", "medium", "high"], ROWS),
            "size": pd.Series(draw.choice(["tiny", "middle", "vast"], ROWS)).astype(levels),
            "weight": pd.Series(draw.choice(["1,5", "2,25", "7,125"], ROWS)),
            "stars_1": draw.integers(1, 6, ROWS),
            "floor": pd.Series(draw.integers(0, 3, ROWS)).astype("Int64"),
        }
    )


def small(y: Any, **settings: Any) -> MultiTaskEstimator:
    X = np.random.default_rng(1).normal(size=(len(y), 3))
    return MultiTaskEstimator(max_steps=4, random_state=0, **settings).fit(X, y)


def test_kinds_are_those_of_fit() -> None:
    y = frame()
    found = {one.spec.name: one.spec for one in learned_targets(target_columns(y, ROWS)[0], "auto")}
    table = y.assign(feature=np.random.default_rng(2).normal(size=ROWS))
    suite = open_suite(table, targets=list(y.columns))
    expected = {task.name: task for task in suite.tasks}
    assert {name: spec.kind for name, spec in found.items()} == {name: task.kind for name, task in expected.items()}
    assert found["grade"].classes == expected["grade"].classes == ("low", "medium", "high")
    assert {found[name].kind for name in ("price", "visits", "zip", "weight")} == {"regression"}
    assert {found[name].kind for name in ("grade", "size", "stars_1")} == {"ordinal"}
    assert (found["sold"].kind, found["rooms"].kind, found["floor"].kind) == ("binary", "multiclass", "multiclass")


def test_classes_come_back_in_their_own_types_and_order() -> None:
    y = frame()[["rooms", "sold", "grade", "size", "floor"]]
    estimator = small(y)
    rooms, sold, grade, size, floor = estimator.classes_
    assert (rooms.tolist(), rooms.dtype.kind) == ([0, 1, 2, 3, 4], "i")
    assert (sold.tolist(), sold.dtype.kind) == ([False, True], "b")
    assert grade.tolist() == ["low", "medium", "high"], "from low to high, not by the alphabet"
    assert size.tolist() == ["tiny", "middle", "vast"]
    assert floor.tolist() == [0, 1, 2]
    assert set(estimator.reasons_) == {task.name for task in estimator.tasks_}
    assert "words of a known scale" in estimator.reasons_["grade"]
    probabilities = estimator.predict_proba(np.zeros((2, 3)))
    assert [part.shape for part in probabilities] == [(2, 5), (2, 2), (2, 3), (2, 3), (2, 3)]


def with_gaps(missing: Any) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(200, 4))
    price, colour = pd.Series(3 * X[:, 0] + 0.5, dtype=object), pd.Series(np.where(X[:, 1] > 0, "red", "blue"), dtype=object)
    whole = pd.DataFrame({"price": price, "colour": colour})
    gaps = whole.copy()
    for name in gaps:
        gaps.loc[draw.permutation(200)[:80], name] = missing
    return X, whole, gaps


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, ""])
def test_missing_labels_of_any_type_are_gaps(missing: Any) -> None:
    _, whole, gaps = with_gaps(missing)
    known = (gaps == whole).to_numpy()
    for y in (gaps, gaps.to_numpy()):
        price, colour = learned_targets(target_columns(y, 200)[0], "auto")
        assert (price.spec.kind, colour.spec.kind) == ("regression", "binary")
        np.testing.assert_array_equal(~np.isnan(price.target[:, 0]), known[:, 0])
        np.testing.assert_array_equal(colour.target >= 0, known[:, 1])
        assert colour.levels is not None
        assert colour.levels.tolist() == ["blue", "red"], "a missing label is no class"


def test_missing_labels_are_learned_around() -> None:
    X, whole, gaps = with_gaps(None)
    estimator = MultiTaskEstimator(max_steps=80, random_state=0).fit(X, gaps)
    assert estimator.score(X, whole) > 0.8
    assert np.isfinite(estimator.predict(X)[:, 0].astype(float)).all()


def test_a_score_leaves_out_what_has_no_label() -> None:
    X = np.random.default_rng(0).normal(size=(80, 2))
    y = pd.DataFrame({"a": X[:, 0] + 0.1, "b": np.where(X[:, 1] > 0, "x", "y")})
    estimator = MultiTaskEstimator(max_steps=30, random_state=0).fit(X, y)
    part = y.assign(a=np.nan)
    assert estimator.score(X, part) == np.mean(estimator.predict(X)[:, 1] == y["b"])
    mixed, even = y.astype(object), np.arange(0, 80, 2)
    mixed.iloc[even + 1] = None
    assert estimator.score(X, mixed) == pytest.approx(estimator.score(X[even], y.iloc[even]))
    with pytest.raises(ValueError, match="no label to score"):
        estimator.score(X, y.assign(a=np.nan, b=None))
    with pytest.raises(ValueError, match="1 columns; the estimator was fitted on 2"):
        estimator.score(X, y["a"])


def test_a_single_target_with_gaps() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3))
    y = np.where(X[:, 0] > 0, 1.0, 0.0)
    y[::3] = np.nan
    estimator = MultiTaskEstimator(max_steps=60, random_state=0).fit(X, y)
    assert estimator.classes_.tolist() == [0.0, 1.0]
    assert estimator.score(X, y) > 0.9


def test_the_few_labels_of_a_task_are_not_all_kept_back() -> None:
    y = np.full((40, 2), np.nan)
    y[:, 0] = np.linspace(0.1, 1.0, 40)
    y[[3, 7], 1] = [1.5, 2.5]
    for seed in range(20):
        X = np.random.default_rng(1).normal(size=(40, 3))
        estimator = MultiTaskEstimator(max_steps=2, validation_fraction=0.9, random_state=seed).fit(X, y)
        assert np.isfinite(estimator.predict(X)).all()


@given(
    st.lists(st.sampled_from([0, 1, 2, None, np.nan]), min_size=6, max_size=30).filter(
        lambda cells: len({0, 1, 2} & {*cells}) > 1
    )
)
def test_codes_and_levels_give_the_labels_back(cells: list[Any]) -> None:
    """Whatever is missing: decoding the target is the column."""
    (one,) = learned_targets(target_columns(pd.Series(cells, dtype=object), len(cells))[0], "auto")
    known = [isinstance(cell, int) for cell in cells]
    if one.levels is None:  # two values with a gap are numbers
        np.testing.assert_array_equal(one.target[known, 0], [cell for cell in cells if isinstance(cell, int)])
        assert np.isnan(one.target[~np.array(known)]).all()
        return
    assert [one.target[index] >= 0 for index in range(len(cells))] == known
    assert one.levels[one.target[known]].tolist() == [cell for cell in cells if isinstance(cell, int)]


def test_columns_that_cannot_be_targets() -> None:
    days = pd.DataFrame({"a": np.linspace(0.1, 1, 30), "day": pd.date_range("2024-01-01", periods=30)})
    with pytest.raises(DataError, match="holds dates"):
        small(days)
    words = pd.DataFrame({"a": np.linspace(0.1, 1, 30), "name": [f"person {index}" for index in range(30)]})
    with pytest.raises(DataError, match=r"looks like an identifier.*`kinds` takes the place of --task-kind"):
        small(words)
    assert small(words, kinds=["auto", "classes"]).tasks_[1].size == 30, "said to be classes, it is"
    with pytest.raises(DataError, match="mixes numbers"):
        small(pd.DataFrame({"a": range(30), "b": pd.Series(["x", 1] + ["y", 2] * 14, dtype=object)}))
    with pytest.raises(ValueError, match="mixes numbers and strings"):
        small(pd.Series(["x", 1] * 15, dtype=object), kinds="classes")
    with pytest.raises(ValueError, match="NaN only, in column 'b'"):
        small(pd.DataFrame({"a": range(30), "b": np.nan}))
    with pytest.raises(ValueError, match="infinity, in column 'y1'"):
        small(np.column_stack([np.arange(30.0), np.where(np.arange(30) == 3, np.inf, 0.5)]))
    with pytest.raises(ValueError, match="29 of its labels are no numbers, such as 'x'"):
        small(pd.Series(["1", *["x"] * 29], name="b"), kinds="regression")
    with pytest.raises(ValueError, match="holds lists"):
        small(pd.DataFrame({"a": range(30), "b": [["x", "y"]] * 30}))


def test_what_is_asked_is_stronger_than_what_is_found() -> None:
    whole = np.column_stack([np.arange(30) % 3, np.arange(30) % 3])
    assert [task.kind for task in small(whole, kinds=["regression", "auto"]).tasks_] == ["regression", "multiclass"]
    flags = np.arange(30) % 2 == 0
    assert small(flags, kinds="regression").predict(np.zeros((1, 3))).dtype == np.float64
    assert small(np.full(30, 7)).predict(np.zeros((2, 3))).tolist() == [7, 7], "a fold may hold one class only"
    assert small(np.full(30, 0.5)).predict(np.zeros((2, 3))) == pytest.approx([0.5, 0.5], abs=0.5)


def test_names_that_would_clash_are_replaced() -> None:
    y = pd.DataFrame(np.column_stack([np.linspace(0.1, 1, 30)] * 2), columns=["a", "a"])
    assert [task.name for task in small(y).tasks_] == ["y0", "y1"]
    odd = pd.DataFrame({"a.b c": np.linspace(0.1, 1, 30), "": np.linspace(0.2, 1, 30)})
    assert [task.name for task in small(odd).tasks_] == ["y0", "y1"]
    assert [task.name for task in small(odd.rename(columns={"": "x=1,2"})).tasks_] == ["a.b c", "x=1,2"]


def test_parameters_are_read_set_and_cloned() -> None:
    settings = {"plan": "mmoe", "max_steps": 7, "kinds": ["auto", "classes"], "training": {"learning_rate": 0.01}}
    estimator = MultiTaskEstimator(**settings, validation_fraction=0.0, random_state=3)
    twin = clone(estimator)
    assert twin is not estimator
    given = {**settings, "validation_fraction": 0.0, "random_state": 3}
    found = twin.get_params()
    assert found == estimator.get_params()
    assert {name: found[name] for name in given} == given
    assert {name: value for name, value in found.items() if name not in given} == {
        "class_weight": None, "metric": None, "weights": None, "device": "auto", "precision": "auto",
    }  # fmt: skip
    assert twin.set_params(max_steps=9).max_steps == 9
    fitted = twin.set_params(plan="shared-trunk").fit(np.eye(10), np.column_stack([np.arange(10.0) / 3, np.arange(10) % 2]))
    assert not hasattr(clone(fitted), "tasks_"), "a clone has learned nothing"
    with pytest.raises(ValueError, match="Invalid parameter"):
        twin.set_params(max_stepz=1)


def test_what_is_not_fitted_says_so() -> None:
    for ask in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(MultiTaskEstimator(), ask)(np.zeros((2, 3)))
    with pytest.raises(NotFittedError):
        MultiTaskEstimator().score(np.zeros((2, 3)), np.zeros(2))


def test_columns_of_x_are_remembered_and_checked() -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["width", "height"])
    estimator = MultiTaskEstimator(max_steps=3, random_state=0).fit(X, X["width"] * 2 + 0.1)
    assert estimator.n_features_in_ == 2
    assert estimator.feature_names_in_.tolist() == ["width", "height"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(X.rename(columns={"height": "depth"}))
    with pytest.raises(ValueError, match="3 features"):
        estimator.predict(np.zeros((2, 3)))
    assert not hasattr(small(np.linspace(0.1, 1, 30)), "feature_names_in_")


def test_a_search_over_settings() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = pd.DataFrame({"a": X[:, 0] + 0.1, "b": np.where(X[:, 1] > 0, "x", "y")})
    search = GridSearchCV(MultiTaskEstimator(random_state=0), {"max_steps": [1, 60]}, cv=2).fit(X, y)
    assert search.best_params_ == {"max_steps": 60}

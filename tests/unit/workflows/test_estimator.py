"""MultiTaskEstimator, also through scikit-learn's own checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from graftwork.core.errors import ConfigError
from graftwork.workflows.estimator import MultiTaskEstimator

EXCEPTIONS: dict[str, str] = {}


def expected_failures(_: Any) -> dict[str, str]:
    return EXCEPTIONS


@parametrize_with_checks([MultiTaskEstimator(max_steps=20, random_state=0)], expected_failed_checks=expected_failures)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def mixed(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 6))
    y = np.empty((rows, 3), dtype=object)
    y[:, 0] = X[:, 0] * 3.0 + X[:, 1] + 0.5
    y[:, 1] = np.where(X[:, 0] + X[:, 2] > 0, "yes", "no")
    y[:, 2] = np.digitize(X[:, 3], [-0.5, 0.5])
    return X, y


def test_mixed_targets_come_back_in_their_own_types() -> None:
    X, y = mixed()
    estimator = MultiTaskEstimator(kinds=["regression", "classes", "classes"], max_steps=300, random_state=0).fit(
        X[:200], y[:200]
    )
    predicted = estimator.predict(X[200:])
    assert [task.kind for task in estimator.tasks_] == ["regression", "binary", "multiclass"]
    assert set(predicted[:, 1]) == {"yes", "no"}
    assert set(predicted[:, 2]) <= {0, 1, 2}
    assert np.corrcoef(predicted[:, 0].astype(float), y[200:, 0].astype(float))[0, 1] > 0.9
    assert (predicted[:, 1] == y[200:, 1]).mean() > 0.85
    probabilities = estimator.predict_proba(X[200:])
    assert probabilities[0] is None
    np.testing.assert_allclose(probabilities[2].sum(axis=1), 1.0, rtol=1e-5)
    assert estimator.score(X[200:], y[200:]) > 0.8


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    X, y = mixed()
    y = y[:, 0].astype(float)
    first, second, other = (MultiTaskEstimator(max_steps=30, random_state=seed).fit(X, y).predict(X) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_works_in_a_pipeline_with_cross_validation() -> None:
    X, y = mixed()
    pipeline = make_pipeline(StandardScaler(), MultiTaskEstimator(max_steps=150, random_state=0))
    assert cross_val_score(pipeline, X, y[:, 0].astype(float), cv=3).mean() > 0.7


def test_other_plans_and_wrong_names() -> None:
    X, _ = mixed(120)
    targets = np.column_stack([X[:, 0], X[:, 1]])
    assert MultiTaskEstimator(plan="mmoe", max_steps=10, random_state=0).fit(X, targets).predict(X).shape == (120, 2)
    with pytest.raises(ConfigError, match="shared-trunk"):
        MultiTaskEstimator(plan="shared-trunc", max_steps=10).fit(X, targets)
    with pytest.raises(ConfigError, match="`kinds` is 'auto'"):
        MultiTaskEstimator(kinds=["regression"], max_steps=10).fit(X, targets)
    with pytest.raises(ConfigError, match="neural plan"):
        MultiTaskEstimator(plan="lightgbm", max_steps=10).fit(X, targets)


def test_columns_of_a_frame_keep_their_own_types() -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(160, 4))
    y = pd.DataFrame({"price": X[:, 0] * 3 + 0.5, "colour": np.where(X[:, 1] > 0, "red", "blue")})
    estimator = MultiTaskEstimator(max_steps=150, random_state=0).fit(X, y)
    assert [(task.name, task.kind) for task in estimator.tasks_] == [("price", "regression"), ("colour", "binary")]
    assert estimator.classes_[0] is None
    predicted = estimator.predict(X)
    assert {type(value) for value in predicted[:, 0]} == {float}
    assert set(predicted[:, 1]) <= {"red", "blue"}
    assert estimator.score(X, y) > 0.8
    same = MultiTaskEstimator(max_steps=150, random_state=0).fit(X, y.to_numpy())
    assert [task.kind for task in same.tasks_] == ["regression", "binary"], "an array of objects is read column by column as well"
    nullable = y.assign(price=y["price"].astype("Float64"), colour=y["colour"].astype("string"))
    assert [task.kind for task in MultiTaskEstimator(max_steps=4, random_state=0).fit(X, nullable).tasks_] == [
        "regression",
        "binary",
    ]


def test_labels_are_compared_by_value() -> None:
    X = np.random.default_rng(0).normal(size=(160, 3))
    labels = (X[:, 0] > 0).astype(int)
    estimator = MultiTaskEstimator(max_steps=150, random_state=0).fit(X, labels)
    expected = estimator.score(X, labels)
    assert expected > 0.9
    for other in (labels.astype(float), labels.astype(bool), labels.astype(str), pd.Series(labels).astype("Int64")):
        assert estimator.score(X, other) == expected
    flags = MultiTaskEstimator(max_steps=150, random_state=0).fit(X, labels.astype(bool))
    assert flags.score(X, labels) == flags.score(X, labels.astype(float)) > 0.9


def test_targets_far_from_zero_keep_their_differences() -> None:
    X = np.random.default_rng(0).normal(size=(400, 3))
    y = 5_000_000.0 + 15 * X[:, 0]
    estimator = MultiTaskEstimator(max_steps=300, random_state=0).fit(X, y)
    assert estimator.predict(X).dtype == np.float64
    assert estimator.score(X, y) > 0.9

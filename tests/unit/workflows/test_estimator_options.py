"""What a caller of the estimator says of single columns: weights of classes, metrics, weights of columns, groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score, log_loss

from graftwork.core.errors import ConfigError
from graftwork.workflows.estimator import MultiTaskEstimator
from graftwork.workflows.estimator_options import group_numbers, held_rows


def rare(rows: int = 600) -> tuple[Any, pd.DataFrame]:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(rows, 4))
    value = X[:, 0] + 0.8 * draw.normal(size=rows)
    words = np.array(["low", "mid", "high"], dtype=object)[np.digitize(value, [1.2, 1.9])]
    return X, pd.DataFrame({"amount": value, "late": np.where(value > 1.5, "yes", "no"), "level": words})


def made(**settings: Any) -> MultiTaskEstimator:
    return MultiTaskEstimator(**{"max_steps": 60, "training": {"learning_rate": 5e-3}, "random_state": 0, **settings})


def test_balanced_classes_find_more_rare_rows() -> None:
    X, y = rare()
    plain = made().fit(X[:400], y[:400])
    even = made(class_weight="balanced").fit(X[:400], y[:400])
    for place, column in ((1, "late"), (2, "level")):
        truth = y[column][400:]
        before, after = (balanced_accuracy_score(truth, one.predict(X[400:])[:, place]) for one in (plain, even))
        assert after > before + 0.03
    np.testing.assert_array_equal(clone(even).get_params()["class_weight"], "balanced")


def test_weights_by_label_are_those_of_balanced_classes() -> None:
    X, y = rare(300)
    counts = y["late"].value_counts()
    weights = {label: 300 / (2 * number) for label, number in counts.items()}
    settings: dict[str, Any] = {"validation_fraction": 0, "max_steps": 15}
    first = made(class_weight="balanced", **settings).fit(X, y["late"]).predict_proba(X)
    for asked in (weights, [weights], {"late": weights}):
        second = made(class_weight=asked, **settings).fit(X, y["late"]).predict_proba(X)
        np.testing.assert_allclose(first, second, atol=1e-4)
    numbers = (y["late"] == "yes").to_numpy()
    as_flags = made(class_weight={0: weights["no"], 1: weights["yes"]}, **settings).fit(X, numbers)
    np.testing.assert_allclose(first, as_flags.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"maybe": 2}, "no column of `y`"),
        ({"late": {"maybe": 2}}, "a weight for 'maybe'"),
        ({"amount": {"yes": 2}}, "holds numbers, not classes"),
        (["balanced"], "one for each column"),
        ({"late": {"yes": -1}}, "at least 0"),
        ({"late": "even"}, "balanced"),
        ("even", "one for each column"),
    ],
)
def test_weights_that_do_not_fit_are_refused(asked: Any, message: str) -> None:
    X, y = rare(60)
    with pytest.raises(ConfigError, match=message):
        made(class_weight=asked).fit(X, y)


def test_scores_follow_metrics_and_weights() -> None:
    X, y = rare()
    estimator = made(metric={"late": "log_loss", "amount": "rmse"}, weights={"late": 3}).fit(X[:400], y[:400])
    scores = []
    for name, weights in (("late", {"late": 1e6}), ("amount", {"amount": 1e6}), ("level", {"level": 1e6})):
        scores.append(estimator.set_params(weights=weights).score(X[400:], y[400:]))
        assert name in y
    shares = estimator.predict_proba(X[400:])[1]
    assert scores[0] == pytest.approx(-log_loss(y["late"][400:], shares[:, 1]), abs=1e-3)
    amount = estimator.predict(X[400:])[:, 0].astype(float)
    assert scores[1] == pytest.approx(-np.sqrt(np.square(amount - y["amount"][400:]).mean()), abs=1e-3)
    assert 0 < scores[2] <= 1
    whole = estimator.set_params(weights=[1, 3, 1]).score(X[400:], y[400:])
    assert whole == pytest.approx((3 * scores[0] + scores[1] + scores[2]) / 5, abs=1e-3)


def test_metrics_of_decisions_choose_thresholds() -> None:
    X, y = rare(1200)
    plain = made(validation_fraction=0.4).fit(X[:900], y[["late", "level"]][:900])
    decided = made(validation_fraction=0.4, metric="balanced_accuracy").fit(X[:900], y[["late", "level"]][:900])
    for place, column in enumerate(("late", "level")):
        before, after = (balanced_accuracy_score(y[column][900:], one.predict(X[900:])[:, place]) for one in (plain, decided))
        assert after > before + 0.03
    np.testing.assert_array_equal(plain.predict_proba(X)[0], decided.predict_proba(X)[0])


@pytest.mark.parametrize(("settings", "message"), [({"metric": "rmse"}, "cannot judge"), ({"weights": [1, 0, 1]}, "above 0")])
def test_metrics_and_weights_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    X, y = rare(60)
    with pytest.raises(ConfigError, match=message):
        made(**settings).fit(X, y)


def test_rows_of_one_group_are_on_one_side() -> None:
    groups = group_numbers(np.repeat(["ann", "bob", "cid", "dan", "eve"], 12), 60)
    assert groups is not None
    for seed in range(20):
        held = held_rows(60, 0.25, groups, seed)
        assert held.sum() == 12
        assert len(set(groups[held]) & set(groups[~held])) == 0
    assert not held_rows(60, 0.25, np.zeros(60, dtype=np.int64), 0).any(), "one group cannot be divided"
    assert held_rows(60, 0.1, groups, 0).sum() == 12, "a group at least"
    assert not held_rows(60, 0.0, groups, 0).any()


def test_groups_are_taken_by_fit() -> None:
    X, y = rare(100)
    estimator = made(validation_fraction=0.5).fit(X, y["amount"], groups=np.arange(100) // 10)
    assert estimator.predict(X).shape == (100,)
    with pytest.raises(ValueError, match="one entry for each of the 100 rows"):
        made().fit(X, y["amount"], groups=[1, 2])


def test_labels_that_were_not_learned_cannot_be_scored() -> None:
    X, y = rare(100)
    estimator = made(metric="accuracy").fit(X, y["late"])
    with pytest.raises(ValueError, match="none of the classes"):
        estimator.score(X, np.array(["never"] * 100))

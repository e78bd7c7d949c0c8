"""The mean over groups and the last value: numbers by hand, files and graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite

from graftwork.core.errors import DataError
from graftwork.data.reading.ingest import open_suite
from graftwork.data.splits import TIMES
from graftwork.data.store import load_suite, save_suite
from graftwork.domains.tabular.group_baselines import GroupMeanLearner, LastValueLearner
from graftwork.workflows.plan_asks import given_of
from graftwork.workflows.portfolio import portfolio


def fitted(kind: type, suite: Any, folder: Path) -> Any:
    learner = kind(context_of(suite, folder))
    learner.train(1)
    return learner


def test_each_group_counts_once(tmp_path: Path) -> None:
    x, y = np.zeros((20, 1)), np.zeros((20, 1))
    x[:, 0] = np.arange(20)
    y[:14, 0] = [*[1.0] * 10, *[5.0] * 3, 9.0]
    groups = np.array([*[0] * 10, *[1] * 3, 2, *[3] * 6])
    suite = number_suite(x, y, groups=groups)
    found = fitted(GroupMeanLearner, suite, tmp_path).predict(np.arange(2))["y0"]
    np.testing.assert_allclose(found, [[5.0], [5.0]], rtol=1e-6)
    absolute = replace(suite, tasks=(replace(suite.tasks[0], metric="mae"),))
    np.testing.assert_allclose(fitted(GroupMeanLearner, absolute, tmp_path).predict(np.arange(1))["y0"], [[5.0]], rtol=1e-6)


def test_shares_of_classes_are_those_of_the_groups(tmp_path: Path) -> None:
    suite = mixed_suite()
    groups = np.arange(len(suite)) % 7
    suite = replace(suite, groups=groups)
    found = fitted(GroupMeanLearner, suite, tmp_path).predict(np.arange(1))["kind"][0]
    train = suite.splits["train"]
    frame = pd.DataFrame({"group": groups[train], "kind": suite.targets["kind"][train]}).query("kind >= 0")
    expected = pd.crosstab(frame["group"], frame["kind"], normalize="index").mean().to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_last_value_is_that_of_the_latest_rows_that_have_one(tmp_path: Path) -> None:
    x = np.arange(20.0)[:, None]
    y = np.arange(20.0)[:, None].copy()
    times = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 10, 10, 11, *range(20, 26)], dtype=float)
    y[13] = np.nan  # the latest training row has no label
    suite = replace(number_suite(x, y), raw={TIMES: times})
    found = fitted(LastValueLearner, suite, tmp_path).predict(np.arange(2))["y0"]
    np.testing.assert_allclose(found, [[11.5], [11.5]], rtol=1e-6)


@pytest.mark.parametrize("kind", [GroupMeanLearner, LastValueLearner])
def test_the_graph_computes_the_same_and_classes_are_never_certain(tmp_path: Path, kind: type) -> None:
    suite = mixed_suite()
    suite = replace(suite, groups=np.arange(len(suite)) % 9, raw={TIMES: np.arange(len(suite), dtype=float)})
    learner = fitted(kind, suite, tmp_path)
    learner.export(tmp_path / "model")
    rows = np.arange(9)
    expected = learner.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-5)
    np.testing.assert_allclose(expected["kind"].sum(axis=1), 1.0, rtol=1e-6)
    assert ((expected["late"] > 0) & (expected["late"] < 1)).all()


def test_without_groups_or_times_they_say_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no groups. Name a column with --group"):
        GroupMeanLearner(context_of(mixed_suite(), tmp_path))
    with pytest.raises(DataError, match="not divided by time. Name a column with --time"):
        LastValueLearner(context_of(mixed_suite(), tmp_path))


def test_they_are_in_the_race_where_the_columns_are_given(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=80), "person": np.arange(80) // 4, "day": draw.permutation(80)})
    frame["price"] = frame["a"] + frame["day"] / 10

    def names(**options: Any) -> set[str]:
        suite = open_suite(frame, targets="price", **options)
        save_suite(suite, tmp_path / "-".join(options))
        stored = load_suite(tmp_path / "-".join(options))
        return {plan.name for plan in portfolio(stored.kinds, 1, None, given_of(stored, ""))}

    plain, grouped, timed = names(ignore="person,day"), names(group="person"), names(time="day")
    assert grouped - plain == {"group-mean"}
    assert timed - plain == {"last-value"}
    suite = open_suite(frame, targets="price", time="day")
    found = fitted(LastValueLearner, suite, tmp_path).predict(np.arange(1))["price"][0, 0]
    train = frame.loc[suite.splits["train"]]
    assert found == pytest.approx(train.loc[train["day"].idxmax(), "price"], rel=1e-5)

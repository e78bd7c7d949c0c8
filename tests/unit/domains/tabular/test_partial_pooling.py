"""The plan for many small tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from tests.unit.domains.tabular.classical_suites import context_of, graph_answers, number_suite

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.domains.tabular import partial_pooling
from graftwork.domains.tabular.linear import LinearLearner
from graftwork.domains.tabular.partial_pooling import PartialPoolingLearner
from graftwork.workflows.portfolio import portfolio

Floats = NDArray[np.float64]


def many_tasks(number: int, rows: int, test: int, *, columns: int = 6, own: float = 0.4, flags: bool = False) -> Suite:
    """Tasks on rows of their own, with one map and deviations from it."""
    draw, size = np.random.default_rng(7), rows + test
    x, shared = draw.normal(size=(number * size, columns)).astype(np.float32), draw.normal(size=columns)
    targets: dict[str, Any] = {}
    for index in range(number):
        mine = slice(index * size, (index + 1) * size)
        value = x[mine] @ (shared + own * draw.normal(size=columns)) + draw.normal() + draw.normal(size=size)
        targets[f"t{index}"] = np.full(len(x), -1) if flags else np.full((len(x), 1), np.nan, dtype=np.float32)
        targets[f"t{index}"][mine] = value > 0 if flags else value[:, None]
    place = np.arange(len(x)) % size
    return Suite.of_arrays(
        name="many",
        input_specs=table_input(columns, []),
        tasks=[TaskSpec(name=name, kind="binary" if flags else "regression", size=1) for name in targets],
        inputs={"numeric": x, "categorical": np.zeros((len(x), 0), np.int64)},
        targets=targets,
        splits={
            "train": np.flatnonzero(place < rows),
            "val": np.zeros(0, dtype=np.int64),
            "test": np.flatnonzero(place >= rows),
        },
    )


def errors(suite: Suite, answers: Any) -> float:
    """Mean over tasks of squared errors as shares of the variance."""
    found = []
    for name, rows in suite.targets.items():
        truth = np.asarray(rows)[suite.splits["test"]]
        known = ~np.isnan(truth[:, 0])
        found.append(np.square(truth - answers[name])[known].mean() / truth[known].var())
    return float(np.mean(found))


def test_120_small_tasks_are_learned_better_than_apart_or_all_as_one(tmp_path: Path) -> None:
    suite = many_tasks(120, rows=14, test=20)
    context, train, test = context_of(suite, tmp_path), suite.splits["train"], suite.splits["test"]
    pooled, separate = PartialPoolingLearner(context), LinearLearner(context)
    for learner in (pooled, separate):
        learner.train(1)
    y = np.nansum(np.concatenate(list(suite.targets.values()), axis=1), axis=1)
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(suite.inputs["numeric"][train], y[train])
    as_one = ridge.predict(suite.inputs["numeric"][test])[:, None]
    found = errors(suite, pooled.predict(test))
    assert found < 0.85 * errors(suite, separate.predict(test))
    assert found < 0.6 * errors(suite, dict.fromkeys(suite.targets, as_one))


def test_yes_or_no_questions_are_pooled_as_well(tmp_path: Path) -> None:
    suite = many_tasks(30, rows=16, test=30, columns=3, flags=True)
    learner = PartialPoolingLearner(context_of(suite, tmp_path))
    learner.train(1)
    answers = learner.predict(suite.splits["test"])
    right = []
    for name, target in suite.targets.items():
        truth = target[suite.splits["test"]]
        right.append(((answers[name] > 0.5) == truth)[truth >= 0].mean())
    assert np.mean(right) > 0.75


def test_what_only_differs_in_intercepts_is_found_to(tmp_path: Path) -> None:
    suite = many_tasks(60, rows=10, test=10, own=0.0)
    learner = PartialPoolingLearner(context_of(suite, tmp_path))
    learner.train(1)
    learner.save(tmp_path)
    assert '"own part": "intercepts"' in (tmp_path / "model.json").read_text("utf-8")


def test_other_units_of_all_targets_change_nothing_else(tmp_path: Path) -> None:
    suite = many_tasks(12, rows=14, test=10)
    moved = replace(suite, targets={name: 100 + 8 * target for name, target in suite.targets.items()})
    answers = []
    for one in (suite, moved):
        learner = PartialPoolingLearner(context_of(one, tmp_path))
        learner.train(1)
        answers.append(learner.predict(one.splits["test"]))
    for name in suite.task_names:
        np.testing.assert_allclose(answers[1][name], 100 + 8 * answers[0][name], rtol=1e-3)


def test_more_columns_than_slopes_keep_the_shared_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_pooling, "_MOST_DIRECTIONS", 12)
    suite = many_tasks(30, rows=14, test=10, columns=40, own=0.0)
    learner = PartialPoolingLearner(context_of(suite, tmp_path))
    learner.train(1)
    assert errors(suite, learner.predict(suite.splits["test"])) < 0.5
    learner.export(tmp_path)
    rows = suite.splits["test"][:30]
    for name, values in graph_answers(tmp_path, suite, rows).items():
        np.testing.assert_allclose(values, learner.predict(rows)[name], rtol=1e-3, atol=1e-3)


def test_more_labels_on_the_same_rows_are_pooled(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    x, maps = draw.normal(size=(90, 12)), draw.normal(size=(12, 1)) + 0.3 * draw.normal(size=(12, 40))
    suite = number_suite(x, x @ maps + 3.0 * draw.normal(size=(90, 40)), train=0.4)
    pooled, separate = (kind(context_of(suite, tmp_path)) for kind in (PartialPoolingLearner, LinearLearner))
    for learner in (pooled, separate):
        learner.train(1)
    test = suite.splits["test"]
    assert errors(suite, pooled.predict(test)) < 0.9 * errors(suite, separate.predict(test))


@pytest.mark.parametrize(("number", "is_in"), [(7, False), (8, True)])
def test_it_enters_the_race_of_many_tasks(number: int, is_in: bool) -> None:
    assert ("partial-pooling" in [plan.name for plan in portfolio(("table",), number)]) == is_in

"""The same answer for every row, for any input and any kind of task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite

from graftwork.core.errors import DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.domains.tabular.constant import ConstantLearner


def pictures(task: TaskSpec, target: np.ndarray) -> Suite:
    rows = np.arange(len(target))
    return Suite.of_arrays(
        name="pictures",
        input_specs={"image": InputSpec(kind="image")},
        tasks=[task],
        inputs={"image": np.zeros((len(target), 8, 8, 3), np.uint8)},
        targets={task.name: target},
        splits={"train": rows[:-4], "val": rows[-4:-2], "test": rows[-2:]},
    )


def fitted(suite: Suite, folder: Path) -> ConstantLearner:
    learner = ConstantLearner(context_of(suite, folder))
    learner.train(1)
    return learner


def test_means_and_shares_of_the_training_rows(tmp_path: Path) -> None:
    suite = mixed_suite()
    found = fitted(suite, tmp_path).predict(np.arange(3))
    train = suite.splits["train"]
    price, kind, tags = (suite.targets[name][train] for name in ("price", "kind", "tags"))
    np.testing.assert_allclose(found["price"], np.tile(np.nanmean(price, axis=0, dtype=np.float64), (3, 1)), rtol=1e-6)
    shares = np.bincount(kind[kind >= 0], minlength=4) / (kind >= 0).sum()
    np.testing.assert_allclose(found["kind"], np.tile(shares, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(found["tags"], np.tile(np.nanmean(tags, axis=0), (3, 1)), rtol=1e-6)


def test_the_median_where_the_metric_is_the_absolute_error(tmp_path: Path) -> None:
    suite = mixed_suite()
    tasks = [replace(task, metric="mae") if task.name == "price" else task for task in suite.tasks]
    found = fitted(replace(suite, tasks=tuple(tasks)), tmp_path).predict(np.arange(1))["price"][0]
    np.testing.assert_allclose(found, np.nanmedian(suite.targets["price"][suite.splits["train"]], axis=0), rtol=1e-5)


def test_an_untrained_one_answers_as_well(tmp_path: Path) -> None:
    suite = mixed_suite()
    untrained = ConstantLearner(context_of(suite, tmp_path)).predict(np.arange(2))
    trained = fitted(suite, tmp_path).predict(np.arange(2))
    for name, values in trained.items():
        np.testing.assert_array_equal(untrained[name], values)


DRAW = np.random.default_rng(0)
TIMES = np.stack([DRAW.exponential(3.0, 40), DRAW.random(40) < 0.7], axis=1).astype(np.float32)
KINDS: list[tuple[TaskSpec, Any]] = [
    (TaskSpec(name="left", kind="survival", size=1), TIMES),
    (TaskSpec(name="edge", kind="binary", size=1, positions="pixels"), (DRAW.random((40, 8, 8)) < 0.1).astype(np.int64)),
    (TaskSpec(name="parts", kind="multiclass", size=3, positions="pixels"), DRAW.integers(0, 3, (40, 8, 8))),
    (TaskSpec(name="depth", kind="regression", size=1, positions="pixels"), DRAW.normal(5, 2, (40, 1, 8, 8)).astype(np.float32)),
    (TaskSpec(name="who", kind="embedding", size=4), DRAW.integers(0, 9, 40)),
]


@pytest.mark.parametrize(("task", "target"), KINDS, ids=lambda value: getattr(value, "name", ""))
def test_any_kind_of_task_on_any_input_has_one_and_it_is_exported(tmp_path: Path, task: TaskSpec, target: np.ndarray) -> None:
    suite = pictures(task, target)
    learner = fitted(suite, tmp_path)
    rows = np.arange(5)
    found = learner.predict(rows)[task.name]
    assert np.isfinite(found).all()
    assert (found == found[:1]).all()
    learner.export(tmp_path / "model")
    np.testing.assert_allclose(graph_answers(tmp_path / "model", suite, rows)[task.name], found, rtol=1e-5)


def test_maps_get_the_mean_of_their_values(tmp_path: Path) -> None:
    task, target = KINDS[3]
    suite = pictures(task, target)
    found = fitted(suite, tmp_path).predict(np.arange(1))["depth"]
    assert abs(float(found.mean()) - float(target[:-4].mean())) < 0.25


def test_a_task_without_a_label_is_named(tmp_path: Path) -> None:
    suite = mixed_suite()
    empty = suite.with_targets({"late": np.full(len(suite), -1)})
    with pytest.raises(DataError, match="'late' has no labelled training row"):
        ConstantLearner(context_of(empty, tmp_path)).train(1)

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites import load_embedded
from graftwork.data.suites.outlier_tasks import outlier_tasks, random_waves


def test_functions_have_unit_variance_and_repeat() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(4, 5))
    drawn = np.stack([random_waves(x, np.random.default_rng(seed)) for seed in range(800)])
    np.testing.assert_allclose(drawn.var(axis=0), 1.0, atol=0.2)
    np.testing.assert_array_equal(drawn[3], random_waves(x, np.random.default_rng(3)))


def test_functions_are_smooth_over_a_quarter_of_the_dimensions() -> None:
    # the covariance of two points at distance d is exp(-d^2 / (2 l^2)), l = 0.25 D
    x = np.array([[0.0] * 4, [0.5, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    drawn = np.stack([random_waves(x, np.random.default_rng(seed)) for seed in range(3000)])
    found = (drawn[:, :1] * drawn).mean(axis=0)
    np.testing.assert_allclose(found, np.exp([-0.0, -0.125, -1.0]), atol=0.08)


def test_every_row_has_the_label_of_its_task_alone() -> None:
    suite = outlier_tasks(num_tasks=5, num_outliers=2, train_rows=30, val_rows=6, test_rows=10, seed=1)
    labels = np.concatenate([suite.targets[name] for name in suite.task_names], axis=1)
    np.testing.assert_array_equal(~np.isnan(labels), np.eye(5, dtype=bool)[suite.raw["task"]])
    for split, rows in (("train", 24), ("val", 6), ("test", 10)):
        assert np.bincount(suite.raw["task"][suite.splits[split]]).tolist() == [rows] * 5
    assert suite.raw["outliers"] == [3, 4]
    assert (
        suite.fingerprint()
        == load_embedded(
            "outlier-tasks", num_tasks=5, num_outliers=2, train_rows=30, val_rows=6, test_rows=10, seed=1
        ).fingerprint()
    )


def test_validation_rows_are_taken_from_the_training_rows() -> None:
    whole, split = (
        outlier_tasks(train_rows=30, test_rows=5, seed=2),
        outlier_tasks(train_rows=30, val_rows=9, test_rows=5, seed=2),
    )
    both = np.sort(np.concatenate([split.splits["train"], split.splits["val"]]))
    np.testing.assert_array_equal(whole.splits["train"], both)
    np.testing.assert_array_equal(whole.inputs["numeric"], split.inputs["numeric"])


def test_tasks_of_a_group_are_nearly_one_function() -> None:
    suite = outlier_tasks(num_tasks=6, num_outliers=2, num_features=1, train_rows=400, test_rows=1, seed=3)
    x, task = suite.inputs["numeric"][:, 0], suite.raw["task"]
    grid = np.linspace(-0.9, 0.9, 40)
    curves = []
    for number, name in enumerate(suite.task_names):
        rows = task == number
        order = np.argsort(x[rows])
        curves.append(np.interp(grid, x[rows][order], suite.targets[name][rows, 0][order]))
    gaps = np.abs(np.stack(curves)[:, None] - np.stack(curves)[None]).mean(axis=2)
    group = np.array([0, 0, 0, 0, 1, 1])
    same = (group[:, None] == group) & ~np.eye(6, dtype=bool)
    assert gaps[same].max() < 0.5 * gaps[group[:, None] != group].min()


def test_classes_are_signs_and_never_rare() -> None:
    suite = outlier_tasks(train_rows=100, test_rows=50, labels="classes", seed=0)
    assert {task.kind for task in suite.tasks} == {"binary"}
    for number, name in enumerate(suite.task_names):
        own = suite.targets[name][suite.raw["task"] == number]
        assert set(own) == {0, 1}
        assert 0.1 <= own.mean() <= 0.9


def test_impossible_worlds_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        outlier_tasks(num_tasks=4, num_outliers=2, val_rows=300, labels="ranks")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 3

"""What is shown of a plan's predictions: right numbers, of bounded size, for every kind that is made of classes or numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.diagnostics import MOST_CLASSES, MOST_DETAILED, MOST_POINTS_IN_ALL, diagnose, diagnose_task

DRAW = np.random.default_rng(0)
NUMBER = TaskSpec(name="price", kind="regression", size=1, columns=("price",))
PAIR = TaskSpec(name="colour", kind="regression", size=2, columns=("red", "green"))
BINARY = TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes"))
MANY = TaskSpec(name="kind", kind="multiclass", size=3, classes=("a", "b", "c"))
LABELS = TaskSpec(name="tags", kind="multilabel", size=3, classes=("x", "y", "z"))


def _task(task: TaskSpec, target: Any, prediction: Any, **options: Any) -> dict[str, Any]:
    found = diagnose_task(task, np.asarray(target), np.asarray(prediction), **options)
    assert found is not None
    json.dumps(found, allow_nan=False)
    return found


def test_numbers_are_shown_with_their_errors() -> None:
    truth = np.array([[10.0], [20.0], [30.0], [40.0], [np.nan]])
    (value,) = _task(NUMBER, truth, [[11.0], [22.0], [29.0], [44.0], [1.0]])["values"]
    assert value["name"] == "price"
    assert value["rows"] == 4, "a row without a label does not count"
    assert value["bias"] == pytest.approx(1.5)
    assert value["typical"] == pytest.approx(1.5)
    assert value["largest"] == 4.0
    assert sorted(zip(value["points"]["truth"], value["points"]["prediction"])) == [(10, 11), (20, 22), (30, 29), (40, 44)]
    assert value["bins"][0]["error"][2] == pytest.approx(1.5), "the median error of all rows, too few for more than one part"


def test_values_come_in_the_units_of_the_user_under_their_names() -> None:
    shifted = TaskSpec(name="day", kind="regression", size=1, columns=("day",), scale=(2.0,), details={"origin": [19_000.0]})
    (value,) = _task(shifted, [[1.0], [2.0]], [[1.5], [2.0]])["values"]
    assert sorted(value["points"]["truth"]) == [19_001.0, 19_002.0]
    found = _task(PAIR, DRAW.normal(size=(50, 2)), DRAW.normal(size=(50, 2)), most_points=20)
    assert [one["name"] for one in found["values"]] == ["colour[red]", "colour[green]"]
    assert [len(one["points"]["truth"]) for one in found["values"]] == [10, 10], (
        "the points of a task are divided among its values"
    )


def test_parts_of_rows_show_where_errors_grow() -> None:
    answer = np.linspace(1, 100, 1000)[:, None]
    truth = answer + answer * DRAW.normal(scale=0.1, size=(1000, 1))
    (value,) = _task(NUMBER, truth, answer)["values"]
    widths = [one["error"][-1] - one["error"][0] for one in value["bins"]]
    assert len(widths) == 10
    assert sum(one["rows"] for one in value["bins"]) == 1000
    assert widths[-1] > 5 * widths[0]


def test_classes_are_counted_as_scikit_learn_counts_them() -> None:
    truth = DRAW.integers(-1, 3, size=200)
    shares = DRAW.dirichlet(np.ones(3), size=200)
    found, known = _task(MANY, truth, shares), truth >= 0
    assert found["counts"] == confusion_matrix(truth[known], shares[known].argmax(1)).tolist()
    assert found["rows"] == known.sum()
    assert found["right"] == int((truth == shares.argmax(1))[known].sum())
    worst = found["mistakes"][0]
    off = np.array(found["counts"]) * (1 - np.eye(3, dtype=int))
    assert worst["rows"] == off.max()
    assert off["abc".index(worst["truth"]), "abc".index(worst["prediction"])] == off.max()


def test_two_classes_are_judged_by_the_probability_of_the_second() -> None:
    found = _task(BINARY, [0, 1, 1, 0], [0.2, 0.8, 0.4, 0.3])
    assert found["positive"] == "yes"
    assert found["counts"] == [[2, 0], [1, 1]]
    assert [one["probability"] for one in found["calibration"]["bins"]] == [0.2, 0.3, 0.4, 0.8]


def test_rare_classes_are_taken_together() -> None:
    number = 30
    task = TaskSpec(name="kind", kind="multiclass", size=number, classes=tuple(f"c{index}" for index in range(number)))
    truth = np.repeat(np.arange(number), np.arange(1, number + 1))
    found = _task(task, truth, np.eye(number)[truth])
    assert found["classes"] == [f"c{index}" for index in range(10, 30)], "those with the most rows"
    assert found["others"] == 10
    assert np.shape(found["counts"]) == (MOST_CLASSES + 1, MOST_CLASSES + 1)
    assert np.sum(found["counts"]) == len(truth)


def test_labels_are_counted_one_by_one() -> None:
    truth = np.array([[1, 0, np.nan], [1, 1, 0], [0, 1, 1]])
    found = _task(LABELS, truth, [[0.9, 0.9, 0.9], [0.1, 0.9, 0.1], [0.1, 0.9, 0.2]])
    assert [[one[key] for key in ("true", "predicted", "both")] for one in found["labels"]] == [[2, 1, 1], [2, 3, 2], [1, 0, 0]]
    assert found["calibration"]["rows"] == 8


def test_kinds_that_are_no_classes_and_numbers_have_none() -> None:
    survival = TaskSpec(name="left", kind="survival", size=2, details={"edges": [1.0, 2.0]})
    assert diagnose_task(survival, np.ones((3, 2)), np.ones((3, 2))) is None
    assert diagnose_task(BINARY, np.array([-1, -1]), np.array([0.1, 0.2])) is None
    assert diagnose_task(NUMBER, np.full((2, 1), np.nan), np.ones((2, 1))) is None


def test_many_tasks_stay_small() -> None:
    rows, names = 2_000, [f"t{index}" for index in range(40)]
    suite = Suite(
        name="wide",
        tasks=tuple(TaskSpec(name=name, kind="regression", size=1, columns=(name,)) for name in names),
        inputs={"numeric": np.zeros((rows, 1), dtype=np.float32)},
        targets={name: DRAW.normal(size=(rows, 1)) for name in names},
        splits={"train": np.arange(0), "val": np.arange(0), "test": np.arange(rows)},
        input_specs=table_input(1),
    )
    found = diagnose(suite, {name: DRAW.normal(size=(rows, 1)) for name in names})
    assert list(found) == names
    detailed = [one for one in found.values() if "points" in one["values"][0]]
    assert len(detailed) == MOST_DETAILED
    assert sum(len(one["values"][0]["points"]["truth"]) for one in detailed) <= MOST_POINTS_IN_ALL
    assert len(json.dumps(found, indent=2)) < 500_000
    assert diagnose(suite, {}) == {}


def test_decisions_that_are_given_are_counted_in_place_of_the_thresholds() -> None:
    truth, shares = np.array([0, 1, 1, -1]), np.array([0.2, 0.4, 0.9, 0.9])
    decided = np.array([True, True, True, False])
    assert _task(BINARY, truth, shares)["counts"] == [[1, 0], [1, 1]]
    assert _task(BINARY, truth, shares, decided=decided)["counts"] == [[0, 1], [0, 2]]
    of_classes = np.eye(3)[[2, 2, 0]]
    found = _task(MANY, np.array([2, 1, 0]), np.full((3, 3), [0.5, 0.3, 0.2]), decided=of_classes)
    assert found["right"] == 2
    assert found["calibration"]["bins"][0]["probability"] == pytest.approx(0.2), "of the class that is chosen"
    tags = _task(LABELS, np.ones((2, 3)), np.full((2, 3), 0.9), decided=np.array([[1, 0, 0], [1, 1, 0]]))
    assert [one["predicted"] for one in tags["labels"]] == [2, 1, 0]
    suite = Suite(name="s", tasks=(BINARY,), inputs={}, targets={"late": truth}, splits={"test": np.arange(4)})
    assert diagnose(suite, {"late": shares}, decided={"late": decided})["late"]["counts"] == [[0, 1], [0, 2]]

"""Permutation importance of models that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.input_columns import input_columns
from graftwork.evaluation.importance import harm_of, screened_columns, shuffled_answers, task_importance

TASK = TaskSpec(name="y", kind="regression", size=1)


def _world(rows: int = 400, width: int = 4) -> tuple[dict[str, Any], Any, tuple[Any, ...]]:
    draw = np.random.default_rng(0)
    inputs = {"numeric": draw.normal(size=(rows, width)).astype(np.float32), "categorical": np.zeros((rows, 0), np.int64)}
    target = (3 * inputs["numeric"][:, :1] + inputs["numeric"][:, 1:2] + 0.1 * draw.normal(size=(rows, 1))).astype(np.float32)
    return inputs, target, input_columns(table_input(width), inputs)


def _predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"y": 3 * inputs["numeric"][:, :1] + inputs["numeric"][:, 1:2]}


def _measured(rows: int = 400, repeats: int = 3) -> dict[str, dict[str, Any]]:
    inputs, target, columns = _world(rows)
    shuffled: dict[str, list[Any]] = {column.name: [] for column in columns}
    for group, _, answers in shuffled_answers(_predict, inputs, [[one] for one in columns], repeats=range(repeats)):
        shuffled[columns[group].name].append(answers["y"])
    found = task_importance(TASK, target, _predict(inputs)["y"], shuffled)
    assert found is not None
    assert found["metric"] == "rmse"
    assert found["score"] == pytest.approx(0.1, abs=0.02)
    return {row["column"]: row for row in found["columns"]}


def test_the_error_grows_by_what_theory_says() -> None:
    # Shuffling x exchanges it for an independent copy: the mean squared error grows by 2 * weight**2 * variance.
    found = _measured()
    assert list(found)[:2] == ["numeric[0]", "numeric[1]"]
    for name, weight in (("numeric[0]", 3.0), ("numeric[1]", 1.0)):
        expected = np.sqrt(2 * weight**2 + 0.01) - 0.1
        assert found[name]["low"] < expected < found[name]["high"]
        assert found[name]["value"] == pytest.approx(expected, rel=0.12)
    for name in ("numeric[2]", "numeric[3]"):
        assert [found[name][key] for key in ("value", "low", "high")] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_what_adding_up_leaves_is_no_importance() -> None:
    target = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float64)
    base = target + 0.1
    # Means over repeats that differ in the last digit alone.
    found = task_importance(TASK, target, base, {"a": [base + 1e-15, base - 3e-16, base]})
    assert found is not None
    assert [found["columns"][0][key] for key in ("value", "low", "high")] == [0.0, 0.0, 0.0]


def test_intervals_shrink_with_rows_and_can_be_left_out() -> None:
    few, many = _measured(60)["numeric[0]"], _measured(2000)["numeric[0]"]
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])
    _, target, _ = _world()
    late = task_importance(TASK, target, target, {"a": [target + 1]}, is_late=lambda: True)
    assert late is not None
    assert late["columns"] == [{"column": "a", "value": 1.0, "low": None, "high": None}]


def test_higher_is_better_has_the_same_sign_and_undefined_scores_are_left_out() -> None:
    task = TaskSpec(name="late", kind="binary", size=1)
    target, right = np.array([0, 1] * 50), np.array([0.1, 0.9] * 50)
    found = task_importance(task, target, right, {"a": [right[::-1].copy()]})
    assert found is not None
    assert found["columns"][0]["value"] == pytest.approx(1.0)
    assert task_importance(task, np.zeros(100, np.int64), right, {"a": [right]}) is None


def test_groups_are_resampled_whole() -> None:
    rows = 200
    inputs, target, columns = _world(rows)
    twice = {name: np.repeat(array, 5, axis=0) for name, array in inputs.items()}
    shuffled = [answers["y"] for _, _, answers in shuffled_answers(_predict, twice, [[columns[0]]])]
    alone, grouped = (
        task_importance(TASK, np.repeat(target, 5, axis=0), _predict(twice)["y"], {"a": shuffled}, groups=groups)
        for groups in (None, np.repeat(np.arange(rows) // 4, 5))
    )
    assert alone is not None
    assert grouped is not None
    width = [one["columns"][0]["high"] - one["columns"][0]["low"] for one in (alone, grouped)]
    assert width[1] > 1.1 * width[0]


def test_blocks_are_predicted_together_and_as_one_by_one() -> None:
    inputs, _, columns = _world(50)
    calls: list[int] = []

    def predict(arrays: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(len(arrays["numeric"]))
        return _predict(arrays)

    together = [(group, repeat, answers["y"]) for group, repeat, answers in
                shuffled_answers(predict, inputs, [[one] for one in columns], repeats=range(2))]  # fmt: skip
    assert calls == [8 * 50]
    assert [part[:2] for part in together] == [(group, repeat) for repeat in range(2) for group in range(4)]
    alone = next(shuffled_answers(predict, inputs, [[columns[1]]]))
    np.testing.assert_array_equal(alone[2]["y"], together[1][2])
    # Another repeat shuffles in another order, and no row keeps its own cell.
    assert (together[0][2] != together[4][2]).any()
    assert (np.abs(together[0][2] - _predict(inputs)["y"]) > 0).all()


def test_of_many_columns_those_that_matter_are_found_with_few_calls() -> None:
    width = 300
    inputs, target, columns = _world(80, width)
    by_name = {column.name: column for column in columns}
    asked: list[int] = []

    def harm(blocks: list[list[str]]) -> list[float]:
        asked.append(len(blocks))
        groups = [[by_name[name] for name in block] for block in blocks]
        base = _predict(inputs)
        return [harm_of([TASK], {"y": target}, base, answers) for _, _, answers in shuffled_answers(_predict, inputs, groups)]

    found = screened_columns([column.name for column in columns], harm, 10, effort=60)
    assert len(found) == 10
    assert {"numeric[0]", "numeric[1]"} <= set(found)
    assert sum(asked) <= 60
    assert screened_columns(["a", "b"], harm, 10, effort=60) == ["a", "b"]

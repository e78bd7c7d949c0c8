"""The mixed plan of a race: which plans it takes, what it answers, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.together import one_plan_a_task, plans_of_tasks
from graftwork.evaluation.metrics import score_task
from graftwork.workflows.fit.answers import Answers, fold_scores
from graftwork.workflows.fit.combined import blend_plan
from graftwork.workflows.fit.ensemble import build_ensemble
from graftwork.workflows.fit.mixed import build_mixed

TASKS = ("a", "b", "c")
ROWS = 200


def suite_of(kind: str = "regression", groups: int | None = None) -> Suite:
    draw = np.random.default_rng(0)
    positions: dict[str, Any] = {"positions": "pixels"} if kind == "dense" else {}
    shape = (ROWS, 1, 3, 3) if kind == "dense" else (ROWS, 1)
    return Suite.of_arrays(
        name="toy",
        input_specs=table_input(1),
        tasks=[TaskSpec(name=name, kind="regression", size=1, **positions) for name in TASKS],
        inputs={"numeric": np.zeros((ROWS, 1), np.float32), "categorical": np.zeros((ROWS, 0), np.int64)},
        targets={name: draw.normal(size=shape).astype(np.float32) for name in TASKS},
        splits={"train": np.arange(100), "val": np.arange(100, 160), "test": np.arange(160, ROWS)},
        groups=None if groups is None else np.arange(ROWS) % groups,
    )


def answers_of(suite: Suite, plan: str, errors: dict[str, float], *, runs: int = 1, in_folds: bool = False) -> list[Answers]:
    """Answers with errors of a size; in folds every row is judged and is a validation row of another training."""
    if in_folds:
        suite = suite.with_splits({**suite.splits, "test": np.arange(ROWS)})
    found = []
    for number in range(runs):
        draw = np.random.default_rng([number, *plan.encode()])
        rows = np.arange(ROWS) if in_folds else suite.splits["val"]
        parts = np.arange(ROWS) % 5 if in_folds else None

        def answer(own: Any, draw: Any = draw) -> dict[str, Any]:
            return {
                name: (suite.targets[name][own] + size * draw.normal(size=suite.targets[name][own].shape)).astype(np.float32)
                for name, size in errors.items()
            }

        val = answer(rows)
        final = FinalRun(
            plan_name=plan,
            seed=number,
            predictions=answer(suite.splits["test"]),
            validation={task.name: score_task(task, suite.targets[task.name][rows], val[task.name]) for task in suite.tasks},
            validation_parts=fold_scores(suite, val, rows, parts),
            parts=parts,
        )
        found.append(Answers(final=final, val_rows=rows, val=val, val_parts=parts))
    return found


LINEAR, TREES, NET = {"a": 0.2, "b": 0.9, "c": 0.3}, {"a": 0.8, "b": 0.2, "c": 0.9}, {"a": 0.6, "b": 0.6, "c": 0.6}


@pytest.mark.parametrize("kind", ["regression", "dense"])
@pytest.mark.parametrize("groups", [None, 20])
def test_each_task_is_answered_by_its_best_plan(kind: str, groups: int | None) -> None:
    suite = suite_of(kind, groups)
    answers = {name: answers_of(suite, name, own, runs=2) for name, own in (("net", NET), ("linear", LINEAR), ("trees", TREES))}
    found = build_mixed(suite, answers)
    assert found is not None
    assert found.weights == {"linear": {"a": 1.0, "c": 1.0}, "trees": {"b": 1.0}}
    assert found.title == "One plan for each task: linear for a, c; trees for b"
    assert len(found.runs) == 2
    for number, run in enumerate(found.runs):
        assert (run.final.plan_name, run.final.seed) == ("mixed", number)
        for task, plan in (("a", "linear"), ("b", "trees"), ("c", "linear")):
            own = answers[plan][number]
            # All parts of the rows agree, so that every row is answered by the plan that is handed over, bit for bit.
            np.testing.assert_array_equal(run.final.predictions[task], own.final.predictions[task])
            np.testing.assert_array_equal(run.val[task], own.val[task])
            assert run.final.validation[task] == own.final.validation[task]


def test_in_folds_rows_are_answered_by_what_other_rows_picked() -> None:
    suite = suite_of().with_splits({"train": np.arange(100), "val": np.arange(100, 160), "test": np.arange(ROWS)})
    answers = {
        name: answers_of(suite, name, own, in_folds=True)
        for name, own in (("one", {"a": 0.5, "b": 0.9, "c": 0.5}), ("two", {"a": 0.505, "b": 0.5, "c": 0.9}))
    }
    found = build_mixed(suite, answers)
    assert found is not None
    assert found.runs[0].final.validation_parts is not None
    assert set(found.runs[0].final.validation_parts) == set(range(5))
    took = found.runs[0].final.predictions["b"]
    np.testing.assert_array_equal(took, answers["two"][0].final.predictions["b"])
    # Every answer is that of one of the plans, and never an average.
    both = np.stack([answers[name][0].final.predictions["a"] for name in ("one", "two")])
    assert (found.runs[0].final.predictions["a"] == both).any(axis=0).all()


def test_there_is_none_where_one_plan_serves_all_tasks_or_is_alone() -> None:
    suite = suite_of()
    best = answers_of(suite, "best", dict.fromkeys(TASKS, 0.2))
    assert build_mixed(suite, {"best": best, "net": answers_of(suite, "net", NET)}) is None
    assert build_mixed(suite, {"best": best}) is None
    assert build_mixed(suite, {}) is None
    linear, trees = (answers_of(suite, name, own) for name, own in (("linear", LINEAR), ("trees", TREES)))
    assert build_mixed(suite.with_tasks(["a"]), {"linear": linear, "trees": trees}) is None
    # A plan without the second run that others have is not compared.
    assert build_mixed(suite, {"linear": answers_of(suite, "linear", LINEAR, runs=2), "trees": trees}) is None


def test_chance_rarely_makes_one() -> None:
    """Equal plans: choosing task by task gains nothing on rows that took no part, so that about half the time there is none."""
    suite, made = suite_of(), 0
    for number in range(40):
        answers = {f"{name}{number}": answers_of(suite, f"{name}{number}", dict.fromkeys(TASKS, 0.5)) for name in "pqrs"}
        picked = [min(answers, key=lambda plan: answers[plan][0].final.validation[task]["rmse"]) for task in TASKS]
        found = build_mixed(suite, answers)
        assert found is None or len(set(picked)) > 1
        made += found is not None
    assert made <= 26


def test_answers_of_other_shapes_are_not_put_into_one_array() -> None:
    draw, suite = np.random.default_rng(4), suite_of()
    tasks = tuple(TaskSpec(name=name, kind="binary", size=1, classes=("no", "yes")) for name in TASKS)
    targets = {name: draw.integers(0, 2, size=ROWS) for name in TASKS}
    suite = replace(suite, tasks=tasks, targets=targets)

    def answers(good: str, *shape: int) -> list[Answers]:
        def of(rows: Any) -> dict[str, Any]:
            raw = {
                name: np.clip(targets[name][rows] + (0.1 if name in good else 0.9) * draw.normal(size=len(rows)), 0, 1)
                for name in TASKS
            }
            return {name: values.reshape(len(rows), *shape) for name, values in raw.items()}

        rows, val = suite.splits["val"], of(suite.splits["val"])
        scores = {task.name: score_task(task, targets[task.name][rows], val[task.name]) for task in tasks}
        return [
            Answers(
                final=FinalRun(plan_name=good, seed=0, predictions=of(suite.splits["test"]), validation=scores),
                val_rows=rows,
                val=val,
            )
        ]

    assert build_mixed(suite, {"linear": answers("ac"), "trees": answers("b")}) is not None
    assert build_mixed(suite, {"linear": answers("ac"), "trees": answers("b", 1)}) is None


def test_an_average_of_nothing_is_no_ensemble() -> None:
    dense = suite_of("dense")
    answers = {name: answers_of(dense, name, own) for name, own in (("linear", LINEAR), ("trees", TREES))}
    assert build_ensemble(dense, answers) is None, "maps are not averaged: this is the mixed plan"
    table = suite_of()
    both = {name: answers_of(table, name, NET) for name in ("one", "two")}
    found = build_ensemble(table, both)
    assert found is not None
    assert not one_plan_a_task(found.weights)


def test_the_plan_says_which_plans_it_takes() -> None:
    members = [
        {"plan": {"name": "linear"}, "steps": 1, "weights": {"a": 1.0, "c": 1.0}},
        {"plan": {"name": "trees"}, "steps": 1, "weights": {"b": 1.0}},
    ]
    found = blend_plan("mixed", "", members, ["table"])
    assert plans_of_tasks(found) == {"linear": ["a", "c"], "trees": ["b"]}
    averaged = [members[0], {**members[1], "weights": {"b": 1.0, "c": 0.5}}]
    assert [found.group, blend_plan("ensemble", "", averaged, ["table"]).group] == ["mixed", "ensemble"]
    assert plans_of_tasks(blend_plan("ensemble", "", averaged, ["table"])) == {}
    halves = [{**one, "weights": dict.fromkeys(one["weights"], 0.5)} for one in members * 2]  # type: ignore[attr-defined]
    assert blend_plan("mixed", "", halves, ["table"]).group == "mixed"
    bag = [{**members[0], "weights": {"a": 0.5}}, {**members[0], "weights": {"a": 0.5}}]
    assert plans_of_tasks(blend_plan("linear", "", bag, ["table"])) == {}
    assert plans_of_tasks(blend_plan("empty", "", [], ["table"])) == {}


def test_rows_of_a_group_are_averaged_with_the_same_weights() -> None:
    spread = {}
    for groups in (20, None):
        suite = suite_of(groups=groups)
        answers = {plan: answers_of(suite, plan, dict.fromkeys(TASKS, 0.8)) for plan in ("one", "two")}
        ensemble = build_ensemble(suite, answers)
        assert ensemble is not None
        made, first, second = (np.asarray(runs[0].val["a"], dtype=np.float64) for runs in (ensemble.runs, *answers.values()))
        # Of two plans the answer says how much the first one weighs.
        weight = ((made - second) / (first - second)).ravel()
        near = np.abs(first - second).ravel() < 0.05
        rows = answers["one"][0].val_rows
        spread[groups] = max(np.ptp(weight[(rows % 20 == group) & ~near]) for group in range(20))
    assert spread[20] < 1e-4
    assert spread[None] > 1e-3, "rows of a group are in several parts"

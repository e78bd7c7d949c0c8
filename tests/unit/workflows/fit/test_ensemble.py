"""The ensemble of a race: what it answers for a row owes nothing to the labels of this row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.blend import PARTS, row_parts
from graftwork.evaluation.metrics import score_task
from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.ensemble import build_ensemble

from .test_mixed import answers_of, suite_of  # type: ignore[import-not-found]

PLANS = tuple("pqrst")


def mixed_suite() -> Suite:
    """A task of numbers, whose answers are averaged, and one of maps, whose answers are not."""
    suite, maps = suite_of(), suite_of("dense")
    tasks = (suite.tasks[0], TaskSpec(name="map", kind="regression", size=1, positions="pixels"))
    return replace(suite, tasks=tasks, targets={"a": suite.targets["a"], "map": maps.targets["b"]})


def equal_plans(suite: Suite, *, number: int = 0, in_folds: bool = False) -> dict[str, list[Answers]]:
    errors = {"a": 0.8, "map": 0.8}
    return {plan: answers_of(suite, f"{plan}{number}", errors, runs=2, in_folds=in_folds) for plan in PLANS}


def with_other_labels(suite: Suite, rows: np.ndarray) -> Suite:  # type: ignore[type-arg]
    changed = {name: np.array(values) for name, values in suite.targets.items()}
    for values in changed.values():
        values[rows] = np.random.default_rng(5).normal(size=values[rows].shape) * 10
    return replace(suite, targets=changed)


@pytest.mark.parametrize("in_folds", [False, True])
def test_a_rows_answer_owes_nothing_to_its_own_label(in_folds: bool) -> None:
    suite = mixed_suite()
    if in_folds:
        suite = suite.with_splits({**suite.splits, "test": np.arange(len(suite))})
    answers = equal_plans(suite, in_folds=in_folds)
    plain = build_ensemble(suite, answers)
    assert plain is not None
    parts = row_parts(len(suite), suite.groups)
    picked: set[bytes] = set()
    for part in range(PARTS):
        other = build_ensemble(with_other_labels(suite, np.flatnonzero(parts == part)), answers)
        assert other is not None
        for one, two in zip(plain.runs, other.runs, strict=True):
            own = parts[one.val_rows] == part
            for task in ("a", "map"):
                np.testing.assert_array_equal(one.val[task][own], two.val[task][own])
            if in_folds:
                own = parts == part
                np.testing.assert_array_equal(one.final.predictions["map"][own], two.final.predictions["map"][own])
            picked.add(np.asarray(one.val["map"]).tobytes() + np.asarray(two.val["map"]).tobytes())
    assert len(picked) > 2, "the labels of other rows do count"


def test_the_score_of_maps_is_that_of_a_plan_and_not_of_the_luckiest() -> None:
    """Of equal plans the best one looks better than the rest on the rows that choose it."""
    ahead, lucky = [], []
    for number in range(12):
        suite = mixed_suite()
        answers = equal_plans(suite, number=number)
        found = build_ensemble(suite, answers)
        assert found is not None
        own = [np.mean([run.final.validation["map"]["rmse"] for run in runs]) for runs in answers.values()]
        mine = np.mean([run.final.validation["map"]["rmse"] for run in found.runs])
        ahead.append(np.mean(own) - mine)
        lucky.append(np.mean(own) - np.min(own))
    assert np.mean(lucky) > 0.005
    assert np.mean(ahead) < 0.4 * np.mean(lucky)


def test_the_plan_that_is_handed_over_is_the_best_on_all_rows() -> None:
    suite = mixed_suite()
    answers = equal_plans(suite)
    answers["q"] = answers_of(suite, "q", {"a": 0.8, "map": 0.1}, runs=2)
    found = build_ensemble(suite, answers)
    assert found is not None
    assert [plan for plan, own in found.weights.items() if own.get("map")] == ["q"]
    for number, run in enumerate(found.runs):
        np.testing.assert_array_equal(run.val["map"], answers["q"][number].val["map"])
        np.testing.assert_array_equal(run.final.predictions["map"], answers["q"][number].final.predictions["map"])


def embedding_answers(suite: Suite, plan: str, own: str, noise: float) -> list[Answers]:
    """Vectors of ten ids in a space of the plan's own, and numbers with an error for the other tasks."""
    (one,) = answers_of(suite.with_tasks(["a", "b"]), plan, {"a": 0.2 if own == "a" else 0.9, "b": 0.9})
    draw = np.random.default_rng(list(plan.encode()))
    centres = draw.normal(size=(10, 8))
    vectors = centres[suite.targets["who"]] + noise * draw.normal(size=(len(suite), 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    val = {**one.val, "who": vectors[one.val_rows]}
    scores = {task.name: score_task(task, suite.targets[task.name][one.val_rows], val[task.name]) for task in suite.tasks}
    predictions = {**one.final.predictions, "who": vectors[suite.splits["test"]]}
    return [replace(one, val=val, final=replace(one.final, predictions=predictions, validation=scores))]


def test_vectors_of_two_plans_are_never_put_side_by_side() -> None:
    plain, draw = suite_of(), np.random.default_rng(7)
    who = TaskSpec(name="who", kind="embedding", size=8)
    targets = {"a": plain.targets["a"], "b": plain.targets["b"], "who": draw.integers(0, 10, size=len(plain))}
    suite = replace(plain, tasks=(*plain.tasks[:2], who), targets=targets)
    answers = {plan: embedding_answers(suite, plan, own, 0.9) for plan, own in (("p", "a"), ("q", ""), ("r", ""))}
    found = build_ensemble(suite, answers)
    assert found is not None
    (chosen,) = [plan for plan, own in found.weights.items() if own.get("who")]
    np.testing.assert_array_equal(found.runs[0].val["who"], answers[chosen][0].val["who"])

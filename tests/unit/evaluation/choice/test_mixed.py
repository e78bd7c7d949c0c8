"""One plan for each task: few plans, none of them clearly behind, and scores in which the luck of choosing has no part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.evaluation.choice.blend import MOST_MEMBERS, PARTS, row_parts
from graftwork.evaluation.choice.mixed import crossed_answers, pick_plans, picks_of, scores_by_part
from graftwork.evaluation.choice.word import MINIMAL_EFFECT
from graftwork.evaluation.metrics import score_task

NUMBER = TaskSpec(name="y", kind="regression", size=1)
BINARY = TaskSpec(name="b", kind="binary", size=1, classes=("no", "yes"))


@settings(max_examples=60, deadline=None)
@given(plans=st.integers(1, 7), tasks=st.integers(1, 9), spread=st.sampled_from([0.1, 1.0, 20.0]), seed=st.integers(0, 10**6))
def test_no_task_takes_a_plan_that_is_behind_by_an_effect(plans: int, tasks: int, spread: float, seed: int) -> None:
    percent = 100.0 - spread * np.random.default_rng(seed).random((plans, tasks))
    found, best = pick_plans(percent, np.ones(tasks))
    assert best == int(np.argmax(percent.mean(axis=1)))
    members = set(found.tolist())
    behind = percent.max(axis=0) - percent[found, np.arange(tasks)]
    assert len(members) <= MOST_MEMBERS
    if len(members) < MOST_MEMBERS:
        assert behind.max() <= MINIMAL_EFFECT
    # Of the plans that are there anyway, each task has the best one.
    assert all(percent[found[task], task] == percent[list(members), task].max() for task in range(tasks))


def test_a_lead_that_is_no_effect_is_not_worth_another_plan() -> None:
    almost = np.array([[100.0, 99.6, 100.0], [90.0, 100.0, 90.0]])
    assert pick_plans(almost, np.ones(3))[0].tolist() == [0, 0, 0]
    clear = np.array([[100.0, 99.4, 100.0], [90.0, 100.0, 90.0]])
    assert pick_plans(clear, np.ones(3))[0].tolist() == [0, 1, 0]


def test_two_tasks_that_one_more_plan_serves_do_not_take_two() -> None:
    # The second plan is the best for one task, the third for the other; the fourth is near both.
    percent = np.array(
        [[100.0, 80.0, 80.0, 100.0], [50.0, 100.0, 80.0, 50.0], [50.0, 80.0, 100.0, 50.0], [50.0, 99.8, 99.8, 50.0]]
    )
    assert pick_plans(percent, np.array([5.0, 1.0, 1.0, 5.0]))[0].tolist() == [0, 3, 3, 0]


def test_weights_decide_who_is_best_over_all_and_unknown_scores_never_win() -> None:
    percent = np.array([[100.0, 80.0], [80.0, 100.0]])
    assert [pick_plans(percent, np.array(share))[1] for share in ([3.0, 1.0], [1.0, 3.0])] == [0, 1]
    unknown = np.array([[np.nan, 100.0, np.nan], [80.0, 99.0, np.nan]])
    found, best = pick_plans(unknown, np.ones(3))
    assert (found.tolist(), best) == ([1, 0, 1], 1)


def test_rows_of_one_group_are_in_one_part() -> None:
    groups = np.array(["b", "a", "c", "a", "b", "c"] * 20)
    parts = row_parts(120, groups)
    assert all(len(set(parts[groups == name].tolist())) == 1 for name in "abc")
    alone = row_parts(1000)
    assert set(alone.tolist()) == set(range(PARTS))
    assert np.bincount(alone).tolist() == [200] * PARTS


@pytest.mark.parametrize("task", [NUMBER, BINARY])
def test_scores_without_a_part_are_those_of_the_other_rows_in_each_training(task: TaskSpec) -> None:
    draw = np.random.default_rng(0)
    is_number = task is NUMBER
    target = draw.normal(size=(90, 1)).astype(np.float32) if is_number else draw.integers(-1, 2, size=90)
    prediction = draw.normal(size=(90, 1)) if is_number else draw.random(90)
    parts, trainings = np.arange(90) % PARTS, np.arange(90) // 30
    found = scores_by_part(task, target, prediction, parts, trainings)
    metric, sign = ("rmse", -1.0) if is_number else ("roc_auc", 1.0)

    def mean(kept: np.ndarray) -> float:
        own = [kept & (trainings == number) for number in range(3)]
        return float(np.mean([score_task(task, target[rows], prediction[rows])[metric] for rows in own]))

    assert found[0] == pytest.approx(sign * mean(np.ones(90, dtype=bool)))
    assert found[1:] == pytest.approx([sign * mean(parts != number) for number in range(PARTS)])


def test_the_luck_of_choosing_is_not_in_the_scores() -> None:
    """Plans of pure noise: whoever judges a choice by the rows that made it finds a gain that is not there."""
    draw, tasks = np.random.default_rng(2), [TaskSpec(name=f"y{number}", kind="regression", size=1) for number in range(4)]
    seen, honest = [], []
    for _ in range(40):
        target = draw.normal(size=(60, 4))
        # Each plan is as good as the others: the truth with noise of its own.
        predictions = target + draw.normal(size=(6, 60, 4))
        rows, parts, trainings = np.arange(60), row_parts(60), np.zeros(60, dtype=np.int64)
        scores = np.stack(
            [
                np.stack([scores_by_part(task, target[:, [t]], one[:, [t]], parts, trainings) for t, task in enumerate(tasks)])
                for one in predictions
            ]
        )
        picks = picks_of(np.moveaxis(scores, 2, 0), tasks)
        errors = {}
        for name, taken in (("mixed", picks), ("alone", picks.alone())):
            whole, crossed = [], []
            for t in range(4):
                answers = [one[:, t] for one in predictions]
                whole.append(answers[int(taken.tasks[t])] - target[:, t])
                found = crossed_answers(
                    int(taken.tasks[t]), taken.tasks_without[:, t], rows, parts, rows, lambda plan, answers=answers: answers[plan]
                )
                crossed.append(found - target[:, t])
            errors[name] = [float(np.sqrt(np.mean(np.square(one)))) for one in (whole, crossed)]
        seen.append(errors["alone"][0] - errors["mixed"][0])
        honest.append(errors["alone"][1] - errors["mixed"][1])
    assert np.mean(seen) > 0.04, "in sample, choosing task by task looks like a gain"
    assert abs(np.mean(honest)) < 0.02, "on rows that took no part there is none"


def test_a_row_is_answered_by_the_plan_that_other_rows_picked() -> None:
    answers = [np.full(6, 10.0), np.full(6, 20.0)]
    rows, parts = np.array([0, 1, 2, 3, 4, 9]), np.arange(10) % PARTS
    without = np.array([0, 1, 0, 0, 1])
    found = crossed_answers(0, without, rows, parts, np.arange(5), lambda plan: answers[plan])
    # Row 9 is of a part whose others picked the second plan, but it picked nothing itself.
    assert found.tolist() == [10.0, 20.0, 10.0, 10.0, 20.0, 10.0]
    assert answers[0].tolist() == [10.0] * 6, "what the plan itself answers is left alone"

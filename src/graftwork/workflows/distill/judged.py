"""What test rows say: the student taught against the same student alone, and what it kept of each teacher. Numbers, no words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Interval, TaskSpec
from graftwork.data.suite import Suite, labelled_rows
from graftwork.data.teacher_answers import TeacherAnswers
from graftwork.evaluation.flips import count_flips, distances, mean_of_rows, right_rows, same_rows
from graftwork.evaluation.metrics import default_metric, score_task

__all__ = ["Answers", "agreement_of", "exchange_of", "flips_of", "kept_of", "teacher_scores", "teachers_answers"]

Array = NDArray[Any]
Answers = Mapping[str, Sequence[Array]]
"""``{task: [test answers of each seed]}`` of one plan; seeds are paired between plans."""


def exchange_of(suite: Suite, task: str) -> float:
    """Return how many rows seeds exchange with the training rows of a task, as a share of those: they share the test rows."""
    target = suite.targets[task]
    train, val = (int(labelled_rows(target[suite.splits[split]]).sum()) for split in ("train", "val"))
    return val / max(1, train)


def teachers_answers(teacher: TeacherAnswers, suite: Suite) -> dict[str, Array]:
    """Return what a teacher answers for the test rows, by task, as ``Learner.predict`` lays it out."""
    import torch

    from graftwork.tasks.decode import decode_output

    rows = suite.splits["test"]
    return {
        task.name: decode_output(task, torch.from_numpy(np.array(teacher.outputs[task.name][rows]))).numpy()
        for task in suite.tasks
        if task.name in teacher.outputs
    }


def teacher_scores(answers: Mapping[str, Array], suite: Suite) -> dict[str, dict[str, Any]]:
    """Return the primary metric of each task that a teacher answers, on the test rows."""
    rows, found = suite.splits["test"], {}
    for name, values in answers.items():
        task = suite.task(name)
        metric = default_metric(task)
        found[name] = {"metric": metric, "value": score_task(task, np.asarray(suite.targets[name][rows]), values).get(metric)}
    return found


def flips_of(suite: Suite, alone: Answers, taught: Answers) -> dict[str, dict[str, Any]]:
    """Return what turned right and wrong from the student alone to the taught one, by task; tasks of classes and labels only."""
    rows, found = suite.splits["test"], dict[str, dict[str, Any]]()
    groups = None if suite.groups is None else suite.groups[rows]
    for task in suite.tasks:
        target = np.asarray(suite.targets[task.name][rows])
        before, after = (_right(task, target, answers[task.name]) for answers in (alone, taught))
        if before is None or after is None:
            continue
        flips = count_flips(before, after, groups, exchange=exchange_of(suite, task.name))
        found[task.name] = {
            "positive": flips.positive,
            "negative": flips.negative,
            "net": flips.net.to_json(),
            "rows": flips.rows,
        }
    return found


def kept_of(suite: Suite, teacher: Mapping[str, Array], alone: Answers, taught: Answers) -> dict[str, dict[str, Any]]:
    """Return how near both students are to one teacher, by task that the teacher answers.

    Returns:
        ``measure`` (``agreement``: share of rows with the same answer; ``distance``: in standard deviations of the teacher's
        numbers), ``alone``, ``taught`` and ``difference`` with intervals, the difference positive where the taught one is nearer;
        for classes and labels ``gained``, the share of rows that the teacher has right and the student alone has wrong which the
        taught one has right, and ``followed``, the share of rows that the teacher has wrong and the student alone right which it
        has wrong, both with their number of ``..._rows``.
    """
    rows, found = suite.splits["test"], dict[str, dict[str, Any]]()
    groups = None if suite.groups is None else suite.groups[rows]
    for name, values in teacher.items():
        task, target = suite.task(name), np.asarray(suite.targets[name][rows])
        exchange = exchange_of(suite, name)
        near = [_near(task, target, values, answers[name]) for answers in (alone, taught)]
        measure, sign = ("agreement", 1.0) if same_rows(task, target, values, values) is not None else ("distance", -1.0)
        found[name] = {
            "measure": measure,
            "alone": _within(mean_of_rows(near[0], groups, exchange=exchange), measure),
            "taught": _within(mean_of_rows(near[1], groups, exchange=exchange), measure),
            "difference": mean_of_rows(sign * (near[1] - near[0]), groups, exchange=exchange).to_json(),
        }
        right = right_rows(task, target, values)
        before, after = (_right(task, target, answers[name]) for answers in (alone, taught))
        if right is None or before is None or after is None:
            continue
        chance = (right == 1) & (before == 0)
        danger = (right == 0) & (before == 1)
        found[name] |= {
            "gained": _share((after == 1) & chance, chance),
            "gained_rows": float(chance.mean()),
            "followed": _share((after == 0) & danger, danger),
            "followed_rows": float(danger.mean()),
        }
    return found


def agreement_of(suite: Suite, teacher: Mapping[str, Array], taught: Answers) -> dict[str, dict[str, Any]]:
    """Return how near a student is to one teacher on the test rows, by task that the teacher answers; no label is read.

    Returns:
        ``measure``, as in :func:`kept_of`, and ``taught`` with its interval.
    """
    rows, found = suite.splits["test"], dict[str, dict[str, Any]]()
    groups = None if suite.groups is None else suite.groups[rows]
    for name, values in teacher.items():
        task, target = suite.task(name), np.asarray(suite.targets[name][rows])
        near = _near(task, target, values, taught[name])
        measure = "agreement" if same_rows(task, target, values, values) is not None else "distance"
        found[name] = {
            "measure": measure,
            "taught": _within(mean_of_rows(near, groups, exchange=exchange_of(suite, name)), measure),
        }
    return found


def _within(interval: Interval, measure: str) -> dict[str, float]:
    """Return an interval whose ends a share or a distance can reach."""
    most = 1.0 if measure == "agreement" else np.inf
    return dataclasses.replace(
        interval, low=float(np.clip(interval.low, 0, most)), high=float(np.clip(interval.high, 0, most))
    ).to_json()


def _share(part: Array, whole: Array) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _right(task: TaskSpec, target: Array, answers: Sequence[Array]) -> NDArray[np.float64] | None:
    found = [right_rows(task, target, np.asarray(item)) for item in answers]
    return None if any(item is None for item in found) else np.stack([item for item in found if item is not None])


def _near(task: TaskSpec, target: Array, teacher: Array, answers: Sequence[Array]) -> NDArray[np.float64]:
    found = []
    for item in answers:
        same = same_rows(task, target, teacher, np.asarray(item))
        found.append(distances(teacher, np.asarray(item)) if same is None else same)
    return np.stack(found)

"""Comparisons on the test rows, each with its word (:mod:`graftwork.evaluation.choice.word`).

Every row of a comparison holds the numbers that its word follows from: the paired interval over rows and seeds, the p-value,
adjusted for the number of comparisons side by side, and what the numbers of rows, groups and seeds allow to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graftwork.core.records import Plan
from graftwork.evaluation.changes import Change, mean_change
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.evaluation.choice.together import is_combined
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.choice.word import Evidence, word_of
from graftwork.evaluation.controls import classify_control
from graftwork.evaluation.delta_m import skills
from graftwork.evaluation.paired import holm

__all__ = [
    "FEWEST_ROWS",
    "compare_cells",
    "compare_means",
    "compare_tasks",
    "compare_with_baseline",
    "control_rows",
    "evidence_of",
    "evidence_of_mean",
    "pooled_control",
    "source_rows",
]

MIN_ROWS, FEWEST_ROWS = 100, 30
"""Labelled test rows of a task below which nothing is asserted, and below which nothing is said."""
MIN_GROUPS, FEWEST_GROUPS = 20, 6
"""The same for groups among the test rows: a bootstrap over a handful of groups is too sure."""
MIN_SEEDS, FEWEST_SEEDS = 3, 2
"""The same for seeds (or folds)."""


def evidence_of(bank: ScoreBank, task: str, change: Change) -> tuple[Evidence, str]:
    """Return how much may be said of a task, and, if that is not everything, why, in words.

    Args:
        bank: Test scores.
        task: Name of the task.
        change: Any change of that task.
    """
    what = "fold" if change.in_folds else "seed"
    counts = [(bank.num_labelled(task), "labelled test row", "", FEWEST_ROWS, MIN_ROWS)]
    if bank.groups is not None:
        counts.append((bank.num_units(task), "group", " among the test rows", FEWEST_GROUPS, MIN_GROUPS))
    counts.append((len(change.seeds), what, " in common", FEWEST_SEEDS, MIN_SEEDS))
    for level in (3, 4):
        for count, unit, where, *least in counts:
            if count < least[level - 3]:
                return ("none" if level == 3 else "some"), f"only {count} {unit}{'s' * (count != 1)}{where}"
    # Rows of one person or site on both sides: more of such rows would make nothing surer.
    crossing = str(bank.suite.raw.get("crossing", ""))
    return ("some" if crossing else "enough"), crossing


def evidence_of_mean(levels: Iterable[Evidence]) -> Evidence:
    """Return how much may be said of a mean over tasks: no more than of its weakest task, but for a minority of which nothing is
    known."""
    found = list(levels)
    if 2 * found.count("none") >= len(found):
        return "none"
    return "enough" if all(level == "enough" for level in found) else "some"


def compare_tasks(bank: ScoreBank, pairs: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Compare two plans on each task; p-values are adjusted for the number of tasks.

    Args:
        bank: Test scores.
        pairs: ``{task: (plan, reference)}``.

    Returns:
        Entries of ``comparisons`` as ``result.json`` holds them.
    """
    return compare_cells(bank, [(task, plan, reference) for task, (plan, reference) in pairs.items()])


def compare_cells(bank: ScoreBank, cells: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Compare plans on tasks; p-values are adjusted for the number of all comparisons together.

    Args:
        bank: Test scores.
        cells: ``(task, plan, reference)``; those that lack a score are left out.

    Returns:
        See :func:`compare_tasks`.
    """
    found = [(task, plan, reference, bank.change(task, plan, reference)) for task, plan, reference in cells]
    kept = [(task, plan, reference, item) for task, plan, reference, item in found if item is not None]
    # Cells without a score say nothing, so they do not count among the comparisons.
    p_values = holm([item.p_value for *_, item in kept])
    return [
        {"task": task, "plan": plan, "reference": reference} | _judged(item, float(p_value), evidence_of(bank, task, item)[0])
        for (task, plan, reference, item), p_value in zip(kept, p_values, strict=True)
    ]


def compare_means(bank: ScoreBank, plans: Sequence[str], reference: str) -> list[dict[str, Any]]:
    """Compare plans with the reference by delta-m; p-values are adjusted for the number of plans.

    Args:
        bank: Test scores.
        plans: Plans other than the reference; those that share no task with it are left out.
        reference: The separate models.

    Returns:
        Rows like those of :func:`compare_tasks`, without ``task``.
    """
    found = [(plan, bank.delta_m(plan, reference)) for plan in plans]
    kept = [(plan, item) for plan, item in found if item is not None]
    p_values = holm([item.p_value for _, item in kept])
    rows = []
    for (plan, item), p_value in zip(kept, p_values, strict=True):
        changes = bank.changes(plan, reference)
        level = evidence_of_mean(evidence_of(bank, task, change)[0] for task, change in changes.items())
        rows.append({"plan": plan, "reference": reference} | _judged(item, float(p_value), level))
    return rows


def compare_with_baseline(bank: ScoreBank, plan: str, baseline: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Compare a plan with a simple baseline: whether what these models learned predicts new rows.

    Changes are shares of the distance that the baseline keeps from a perfect score (:func:`~graftwork.evaluation.delta_m.skills`).

    Models of other training rows are not the question here, as they are where two plans are compared. So there is no correction for
    the training rows that seeds or folds share, and in a cross-validation the rows alone count: with three folds, both widen intervals
    so far that errors of 55 against the 77 of a constant show nothing. Where nothing can be learned, no more plans than the interval
    allows are found above zero all the same, since learned models are then worse than a constant on average.

    Args:
        bank: Test scores.
        plan: The plan.
        baseline: The simple baseline.

    Returns:
        A row like those of :func:`compare_means`, None if the two share no task, and rows like those of :func:`compare_tasks`.
    """
    tried = {task: bank.change(task, plan, baseline, relative=skills) for task in bank.suite.task_names}
    changes = {task: item for task, item in tried.items() if item is not None}
    if not changes:
        return None, []
    levels = {task: evidence_of(bank, task, item)[0] for task, item in changes.items()}
    found = {
        task: dataclasses.replace(item, seeds=item.seeds[:0], ids=())
        if item.in_folds
        else dataclasses.replace(item, exchange=0.0)
        for task, item in changes.items()
    }
    names = {"plan": plan, "reference": baseline}
    p_values = holm([item.p_value for item in found.values()])
    tasks = [
        {"task": task, **names, **_judged(item, float(p_value), levels[task])}
        for (task, item), p_value in zip(found.items(), p_values, strict=True)
    ]
    mean = mean_change(list(found.values()), [bank.weights.get(task, 1.0) for task in found])
    return {**names, **_judged(mean, mean.p_value, evidence_of_mean(levels.values()))}, tasks


def _judged(change: Change, p_value: float, evidence: Evidence) -> dict[str, Any]:
    interval = change.interval()
    return {
        "difference": interval.to_json(),
        "p_value": p_value,
        "evidence": evidence,
        "probability": change.probability,
        "label": word_of(interval.value, interval.low, interval.high, p_value, evidence),
    }


def source_rows(
    bank: ScoreBank, table: ValidationTable, plans: Mapping[str, Plan], finals: Mapping[str, Sequence[FinalRun]]
) -> list[dict[str, Any]]:
    """Compare, task by task, the best plan on fixed pretrained features with the best plan from scratch (best on validation).

    Without a frozen plan, any pretrained one counts. Empty if one side is missing.
    """
    pretrained = [name for name in finals if plans[name].source == "pretrained"]
    # Fixed features show what the source brings; fine-tuning mixes that with learning.
    pretrained = [name for name in pretrained if plans[name].role == "independent"] or pretrained
    # What is made of other plans may hold the pretrained plan itself, so it is from neither source.
    scratch = [name for name in finals if plans[name].source == "scratch" and not is_combined(plans[name])]
    pairs: dict[str, tuple[str, str]] = {}
    for task in bank.suite.task_names:
        left, right = table.best(pretrained, task), table.best(scratch, task)
        if left is not None and right is not None:
            pairs[task] = (left, right)
    return [
        {
            "task": row["task"],
            "pretrained_plan": row["plan"],
            "scratch_plan": row["reference"],
            "difference": row["difference"],
            "p_value": row["p_value"],
            "evidence": row["evidence"],
            "label": row["label"],
        }
        for row in compare_tasks(bank, pairs)
    ]


def control_rows(
    bank: ScoreBank, controls: Mapping[str, tuple[str, str]], gains: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Say for each task with a control whether its result in the shared plan comes from the companions' labels.

    Args:
        bank: Test scores of plans and controls.
        controls: ``{task: (shared plan, arm of the control)}``.
        gains: ``{task: row}`` of the shared plan against its separate counterpart, from :func:`compare_tasks`.

    Returns:
        For each task ``gain`` (against separate models) and ``over_control``, both with their words, and ``label``. p-values are
        adjusted for the number of tasks.
    """
    beyond = {row["task"]: row for row in compare_tasks(bank, dict(controls))}
    rows = []
    for task, (plan, _) in controls.items():
        # One of the arms did not finish, or there is no counterpart.
        if task not in gains or task not in beyond:
            continue
        gain, over = gains[task], beyond[task]
        rows.append(
            {
                "task": task,
                "plan": plan,
                "reference": gain["reference"],
                "gain": gain["difference"],
                "gain_word": gain["label"],
                "over_control": over["difference"],
                "over_control_p_value": over["p_value"],
                "over_control_word": over["label"],
                "evidence": over["evidence"],
                "label": classify_control(gain["label"], over["label"], gain["difference"]["value"], over["difference"]["high"]),
            }
        )
    return rows


def pooled_control(bank: ScoreBank, controls: Mapping[str, tuple[str, str]], reference: str) -> dict[str, Any] | None:
    """Say the same of the mean over all tasks with a control: single tasks may be too noisy where their mean is not.

    Args:
        bank: Test scores of plans and controls.
        controls: ``{task: (shared plan, arm of the control)}``, all of one plan.
        reference: The separate counterpart of that plan.

    Returns:
        ``tasks``; ``gain`` against the counterpart; ``over_control`` with its p-value, ``evidence`` and word. None without a task
        that all arms finished.
    """
    gains = {task: bank.change(task, plan, reference) for task, (plan, _) in controls.items()}
    beyond = {task: bank.change(task, plan, arm) for task, (plan, arm) in controls.items()}
    found = [(task, gain, over) for task in controls if (gain := gains[task]) is not None and (over := beyond[task]) is not None]
    if not found:
        return None
    weights = [bank.weights.get(task, 1.0) for task, *_ in found]
    over_all = mean_change([over for *_, over in found], weights)
    row = _judged(over_all, over_all.p_value, evidence_of_mean(evidence_of(bank, task, over)[0] for task, _, over in found))
    return {
        "tasks": [task for task, *_ in found],
        "gain": mean_change([gain for _, gain, _ in found], weights).interval().to_json(),
        "over_control": row["difference"],
        "over_control_p_value": row["p_value"],
        "over_control_word": row["label"],
        "evidence": row["evidence"],
    }

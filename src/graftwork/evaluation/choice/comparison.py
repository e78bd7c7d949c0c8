"""Comparisons on the test rows, and the words for them.

``better`` and ``worse`` need two witnesses: the paired interval over rows and seeds, and the corrected resampled t-test over
seeds (Holm over tasks). One of them, or a probability of 0.8, gives ``tentative``. Few rows or seeds never give more than ``tentative``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from graftwork.core.records import Plan
from graftwork.data.suite import Suite, labelled_rows
from graftwork.evaluation.changes import Change
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.evaluation.choice.selection import MINIMAL_EFFECT, ValidationTable
from graftwork.evaluation.controls import classify_control
from graftwork.evaluation.paired import corrected_resampled_ttest, holm

__all__ = [
    "Label",
    "compare_cells",
    "compare_means",
    "compare_tasks",
    "control_rows",
    "label_change",
    "seed_p_value",
    "source_rows",
    "weak_evidence",
]

Label = Literal["better", "probably better", "no difference", "probably worse", "worse"]

MIN_ROWS = 100
"""Labelled test rows of a task below which nothing is asserted."""
MIN_GROUPS = 20
"""Groups among the test rows below which nothing is asserted: a bootstrap over a handful of groups is too sure."""
MIN_SEEDS = 3
PROBABLE = 0.8
"""Probability from which a comparison is tentative, and not open."""
ALPHA = 0.05


def label_change(change: Change, p_value: float, *, may_assert: bool, probable: float = PROBABLE) -> Label:
    """Return the word for a change.

    Args:
        change: The change with its uncertainty.
        p_value: Of the corrected resampled t-test, adjusted for the number of tasks; NaN if the test says nothing.
        may_assert: Whether there are enough rows and seeds.
        probable: Probability from which it is tentative.
    """
    interval = change.interval()
    # `not >=` and not `<`: a change that is NaN is no difference either.
    if not abs(change.value) >= MINIMAL_EFFECT:
        return "no difference"
    # Comparisons with NaN are False, so unknown bounds agree with nothing.
    rows_agree = interval.low > 0 or interval.high < 0
    seeds_agree = p_value < ALPHA
    # Of a change in the direction that was seen.
    probability = change.probability if change.value > 0 else 1 - change.probability
    if rows_agree and seeds_agree and may_assert:
        return "better" if change.value > 0 else "worse"
    if rows_agree or seeds_agree or probability >= probable:
        return "probably better" if change.value > 0 else "probably worse"
    return "no difference"


def seed_p_value(suite: Suite, change: Change, task: str | None = None) -> float:
    """Return the corrected resampled t-test's p-value for a change over seeds.

    The test rows are the same for all seeds; what seeds exchange are training and validation rows, so those set the correction.
    How far other test rows would move the change is the bootstrap's part.
    """
    counts = []
    for split in ("train", "val"):
        # Rows without a label of the task teach and judge nothing, so they are not exchanged either.
        rows = suite.splits[split]
        counts.append(len(rows) if task is None else int(labelled_rows(suite.targets[task][rows]).sum()))
    return corrected_resampled_ttest(change.seeds, max(1, counts[0]), counts[1]).p_value


def weak_evidence(bank: ScoreBank, task: str, change: Change) -> str:
    """Return why nothing may be asserted of a task, in words; empty if something may."""
    if bank.suite.raw.get("crossing"):
        return str(bank.suite.raw["crossing"])
    rows = bank.num_labelled(task)
    if rows < MIN_ROWS:
        return f"{rows} labelled test rows"
    if bank.groups is not None and bank.num_units(task) < MIN_GROUPS:
        return f"{bank.num_units(task)} groups among the test rows"
    if len(change.seeds) < MIN_SEEDS:
        return f"{len(change.seeds)} seed{'s' * (len(change.seeds) != 1)} in common"
    return ""


def compare_tasks(bank: ScoreBank, pairs: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Compare two plans on each task; p-values are adjusted for the number of tasks.

    Args:
        bank: Test scores.
        pairs: ``{task: (plan, reference)}``.

    Returns:
        Entries of ``comparisons`` as ``result.json`` holds them, with ``probability`` (that the plan is better) beside.
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
    p_values = holm([seed_p_value(bank.suite, item, task) for task, _, _, item in kept])
    return [
        {
            "task": task,
            "plan": plan,
            "reference": reference,
            "difference": item.interval().to_json(),
            "p_value": float(p_value),
            "probability": item.probability,
            "label": label_change(item, p_value, may_assert=not weak_evidence(bank, task, item)),
        }
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
    p_values = holm([seed_p_value(bank.suite, item) for _, item in kept])
    return [
        {
            "plan": plan,
            "reference": reference,
            "difference": item.interval().to_json(),
            "p_value": float(p_value),
            "probability": item.probability,
            # A mean is no better founded than its weakest task.
            "label": label_change(
                item, p_value, may_assert=not any(weak_evidence(bank, task, item) for task in bank.suite.task_names)
            ),
        }
        for (plan, item), p_value in zip(kept, p_values, strict=True)
    ]


def source_rows(
    bank: ScoreBank, table: ValidationTable, plans: Mapping[str, Plan], finals: Mapping[str, Sequence[FinalRun]]
) -> list[dict[str, Any]]:
    """Compare, task by task, the best plan on fixed pretrained features with the best plan from scratch (best on validation).

    Without a frozen plan, any pretrained one counts. Empty if one side is missing.
    """
    pretrained = [name for name in finals if plans[name].source == "pretrained"]
    # Fixed features show what the source brings; fine-tuning mixes that with learning.
    pretrained = [name for name in pretrained if plans[name].role == "independent"] or pretrained
    scratch = [name for name in finals if plans[name].source == "scratch"]
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
            "label": row["label"],
        }
        for row in compare_tasks(bank, pairs)
    ]


def control_rows(bank: ScoreBank, controls: Mapping[str, tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Say for each task with a control whether its result in the shared plan is transfer or regularisation.

    Args:
        bank: Test scores of plans and controls.
        controls: ``{task: (shared plan, its separate reference, arm of the control)}``.
    """
    rows = []
    for task, (plan, reference, arm) in controls.items():
        gain, over = bank.change(task, plan, reference), bank.change(task, plan, arm)
        # One of the arms did not finish, or there is no reference.
        if gain is None or over is None:
            continue
        gained, beyond = gain.interval(), over.interval()
        rows.append(
            {
                "task": task,
                "plan": plan,
                "gain": gained.to_json(),
                "over_control": beyond.to_json(),
                "label": classify_control(gained, beyond),
            }
        )
    return rows

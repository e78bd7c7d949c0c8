"""The first question of a verdict: do the tasks help each other?

It is asked of equal trunks only: a plan that learns the tasks together against the one that learns each of them separately with
the same kind of model, networks and trees each on their own. That sharing changes a task is no proof that the other tasks'
labels did it: "helps" and "hurts" need the control with shuffled companions, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftwork.core.records import Plan
from graftwork.core.stages.train import TrainStage
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.controls import classify_control

__all__ = [
    "Pair",
    "answers_of",
    "counterpart",
    "is_baseline",
    "is_combined",
    "one_plan_a_task",
    "pairs_to_judge",
    "plans_of_tasks",
    "trunk_of",
]

Row = Mapping[str, Any]
Pair = tuple[str, str]
"""A plan that learns the tasks together, and its counterpart that learns them separately."""

_AVERAGE = "graftwork.training.blend:BlendLearner"
"""By path, since groups of plans are free text, and this floor knows no learner."""
_JOINT = "Joint"
"""Learners of all targets together are named after those of one target, with this in front."""


def is_baseline(plan: Plan) -> bool:
    """Return whether a plan looks at no input: it answers with a constant, or the like."""
    return plan.group in ("baseline", "constant") or plan.name == "constant"


def is_combined(plan: Plan) -> bool:
    """Return whether a plan is made of others, of whatever kinds and sources they are: averages them, or takes one for each task."""
    return any(isinstance(stage, TrainStage) and stage.learner.path == _AVERAGE for stage in plan.stages)


def one_plan_a_task(weights: Mapping[str, Mapping[str, float]]) -> bool:
    """Return whether several plans are put together so that each task is answered by one of them alone, and nothing is averaged.

    Args:
        weights: ``{plan: {task: weight}}``.
    """
    given = [(task, weight) for own in weights.values() for task, weight in own.items() if weight > 0]
    return len(weights) > 1 and bool(given) and len({task for task, _ in given}) == len(given)


def plans_of_tasks(plan: Plan) -> dict[str, list[str]]:
    """Return ``{name of a plan: tasks that it answers}`` of a plan that takes one of several plans for each task; empty of others."""
    stage = next((stage for stage in plan.stages if isinstance(stage, TrainStage)), TrainStage())
    if stage.learner.path != _AVERAGE:
        return {}
    members = [dict(one) for one in stage.learner.settings.get("members", ())]
    weights = {str(one["plan"]["name"]): dict(one["weights"]) for one in members}
    # Several trainings of one plan are an average.
    if len(weights) < len(members) or not one_plan_a_task(weights):
        return {}
    return {name: [task for task, weight in own.items() if weight > 0] for name, own in weights.items()}


def trunk_of(plan: Plan) -> tuple[str, str, str]:
    """Return what kind of model a plan trains: source, learner and trunk; equal for plans that differ by their sharing."""
    stage = next((stage for stage in plan.stages if isinstance(stage, TrainStage)), TrainStage())
    module, _, name = stage.learner.path.rpartition(":")
    backbone = stage.backbone.path if stage.backbone is not None else ""
    return plan.source, f"{module}:{name.removeprefix(_JOINT)}", backbone


def counterpart(plan: str, plans: Mapping[str, Plan], finals: Sequence[str], table: ValidationTable) -> str | None:
    """Return the plan that learns each task separately with the same kind of model as a joint one; None if there is none.

    Args:
        plan: The joint plan.
        plans: Plan records.
        finals: Names of the finished plans.
        table: Validation scores: the best of several counts.
    """
    trunk = trunk_of(plans[plan])
    same = [name for name in finals if plans[name].role != "joint" and trunk_of(plans[name]) == trunk]
    # A network on fixed features is "independent" as well: of networks only the reference trains a trunk for each task.
    references = [name for name in same if plans[name].role == "reference"]
    network = trunk_of(plans[plan])[1] == trunk_of(Plan(name="", title="", role="joint", modalities=()))[1]
    found = references if references or network else same
    return table.best(found) or next(iter(found), None)


def pairs_to_judge(
    plans: Mapping[str, Plan],
    finals: Mapping[str, Sequence[FinalRun]],
    controls: Mapping[str, Sequence[FinalRun]],
    table: ValidationTable,
) -> list[Pair]:
    """Return a pair for each kind of model: the plan that the controls were made for, or the best joint one on validation."""
    controlled = {runs[0].plan_name for runs in controls.values()}
    families: dict[tuple[str, str, str], list[str]] = {}
    for name in finals:
        if plans[name].role == "joint":
            families.setdefault(trunk_of(plans[name]), []).append(name)
    found = []
    for joint in families.values():
        plan = next((name for name in joint if name in controlled), None) or table.best(joint) or joint[0]
        other = counterpart(plan, plans, list(finals), table)
        if other is not None:
            found.append((plan, other))
    return found


def answers_of(
    pairs: Sequence[Pair],
    mean: Callable[[str, str], Row | None],
    rows: Callable[[str, str], Sequence[Row]],
    control_results: Sequence[Row],
    pooled: Mapping[str, Row | None],
) -> list[dict[str, Any]]:
    """Return the answer for each pair, as ``help`` of the verdict holds it.

    Args:
        pairs: From :func:`pairs_to_judge`.
        mean: Gives the comparison of two plans by delta-m.
        rows: Gives their comparisons task by task.
        control_results: From :func:`graftwork.evaluation.choice.comparison.control_rows`.
        pooled: ``{plan: mean over its controls}`` from :func:`graftwork.evaluation.choice.comparison.pooled_control`.

    Returns:
        ``plan``, ``reference``, ``difference``, ``p_value``, ``evidence``, ``label`` of the mean over tasks; ``control``, the mean
        over the tasks with a control and its ``label`` (None without any); ``tasks``, the comparisons with ``control``, the label of the control
        (None without one).
    """
    found = []
    for plan, reference in pairs:
        whole = mean(plan, reference)
        if whole is None:
            continue
        labels = {row["task"]: row["label"] for row in control_results if row["plan"] == plan and row["reference"] == reference}
        # With the words of the control, a sentence can say "helps" or "probably helps" from this row alone.
        surely = {row["task"]: row["over_control_word"] in ("better", "worse") for row in control_results if row["plan"] == plan}
        tasks = [
            {
                **{key: row[key] for key in ("task", "difference", "p_value", "evidence", "label")},
                "control": labels.get(row["task"]),
                "surely": row["label"] in ("better", "worse") and surely.get(row["task"], False),
            }
            for row in rows(plan, reference)
        ]
        found.append({**whole, "control": _labelled(whole, pooled.get(plan)), "tasks": tasks})
    return found


def _labelled(whole: Row, control: Row | None) -> dict[str, Any] | None:
    """Return the mean over the controls with what it makes of the mean over all tasks: ``transfer``, but never ``harm``."""
    if control is None:
        return None
    value = float(whole["difference"]["value"])
    label = classify_control(whole["label"], control["over_control_word"], value, float(control["over_control"]["high"]))
    # Tasks without a control may be those that gain: then the control shows nothing of it.
    if label == "transfer" and value * float(control["gain"]["value"]) <= 0:
        label = "gain"
    # Labels that can be learned take a share of the trunk that noise does not, related or not. A mean of many such small losses
    # would call unrelated tasks harmful, so harm is said of single tasks only.
    return {**control, "label": "loss" if label == "harm" else label}

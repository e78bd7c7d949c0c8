"""Groupings of tasks: suggested by measured affinities, and filled into plans that ask for ``groups = "auto"``.

Such a plan is resolved once a run, before anything is estimated or trained: a short training with one trunk for all tasks on
four fifths of the training rows, affinities read on the last fifth. No validation and no test row is seen, and the plan record
names its groups from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.components import Component
from graftwork.core.records import Plan
from graftwork.workflows.runs.context import RunContext

__all__ = ["GROUPING_STEPS", "MAX_GROUPS", "needs_grouping", "resolve_groupings", "suggest_grouping"]

MAX_GROUPS = 3
"""Most groups of a suggestion."""
GROUPING_STEPS = 200
"""Steps of the short training if the user gave no number of steps; with one, three tenths of it."""
_NO_TIME = "there was no time; give more with --time-limit"
_ONLY_A_HINT = "Separate models were chosen. These groups are what to try next, with `--plans +grouped`."
_TRUNK = Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")


def suggest_grouping(
    affinity: Mapping[str, Any] | None,
    max_groups: int = MAX_GROUPS,
    *,
    controls: Mapping[str, str] | None = None,
    separate_is_chosen: bool = False,
) -> dict[str, Any] | None:
    """Return the best grouping with confidence, its ``advised`` groups and ``advice`` in words; None without affinities of at least two tasks.

    Args:
        affinity: Pairwise gains with intervals.
        max_groups: Most groups.
        controls: ``{task: label}`` of the control with shuffled companions; without one nothing is advised, and ``advised`` is
            None.
        separate_is_chosen: Whether the separate models are the choice; the advice then says what its groups are for.
    """
    if not affinity or len(affinity["tasks"]) < 2:
        return None
    from graftwork.evaluation.grouping import advise_grouping, advised_groups, group_tasks

    found = group_tasks(affinity, max_groups)
    advice = advise_grouping(found, controls)
    advised = [group for group, _ in advised_groups(found, controls)]
    if separate_is_chosen and any(len(group) > 1 for group in advised):
        advice.insert(0, _ONLY_A_HINT)
    return {**found, "advised": advised if controls else None, "advice": advice}


def needs_grouping(plan: Plan) -> bool:
    """Return whether a plan leaves its groups to the workflow."""
    return plan.train.sharing.settings.get("groups") == "auto"


def resolve_groupings(
    context: RunContext[Any], plans: Sequence[Plan], *, seconds: float | None = None
) -> tuple[list[Plan], dict[str, str], dict[str, Any] | None]:
    """Return the plans with groups in place of ``"auto"``.

    Args:
        context: The run; finished measurements in it are not made again.
        plans: All plans.
        seconds: Seconds that the short trainings may take; None gives them all that they need. A plan whose groups are not found by
            then is left out, since one without groups cannot be scheduled.

    Returns:
        The plans; the reasons of those that could not be resolved, by name; and what was measured last (``affinity``,
        ``gradients``, ``grouping``, ``steps``, ``seconds``), or None.
    """
    waiting = [plan for plan in plans if needs_grouping(plan)]
    if not waiting:
        return list(plans), {}, None
    steps = context.settings.steps
    until = GROUPING_STEPS if steps is None else max(4, round(0.3 * steps))
    jobs = {plan.name: context.maker.grouping(plan.with_train(sharing=_TRUNK), until) for plan in waiting}
    context.run.emit("phase", phase="grouping", jobs=len(jobs), plans=list(jobs))
    answers = context.run_jobs(list(jobs.values()), past_deadline=True, seconds=seconds)
    groups, reasons, measured = {}, {}, None
    for plan in waiting:
        answer = answers.get(jobs[plan.name].id, {"status": "stopped", "message": _NO_TIME})
        if answer["status"] != "ok":
            reasons[plan.name] = f"its groups could not be measured: {answer['message'] or _NO_TIME}"
            continue
        settings = dict(plan.train.sharing.settings)
        found = suggest_grouping(answer["affinity"], int(settings.pop("max_groups", None) or MAX_GROUPS))
        # A single task has no pair to measure: one group of all.
        settings["groups"] = found["groups"] if found else [list(context.suite.task_names)]
        groups[plan.name] = plan.with_train(sharing=Component(plan.train.sharing.path, settings))
        measured = {
            "affinity": answer["affinity"],
            "gradients": answer.get("gradients"),
            "grouping": found,
            "steps": answer["steps"],
            "seconds": answer["seconds"],
        }
    return [groups.get(plan.name, plan) for plan in plans], reasons, measured

"""What a race did not find out for lack of time: plans that were left out, numbers that were cut, trainings that were not at their
end."""

from __future__ import annotations

from typing import Any

from graftwork.workflows.fit.attempts import improves
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.horizons import shared_plans

__all__ = ["not_tested", "still_improving", "would_gain"]


def not_tested(context: RunContext[Any], outcome: RaceOutcome) -> list[dict[str, Any]]:
    """Return what was not tested, each as ``{"what", "name", "reason"}``.

    ``what`` is ``plan`` (left out before the race), ``sharing`` (no plan that shares was finished), ``controls`` (none was
    finished), or one of the numbers of :class:`~graftwork.workflows.runs.effort.Effort`, with ``planned`` and ``given``.
    """
    estimates = context.run.state.get("estimates", {})
    found: list[dict[str, Any]] = [
        {"what": "plan", "name": name, "reason": str(estimate["reason"])}
        for name, estimate in estimates.items()
        if not estimate["kept"]
    ]
    finished = [context.plans[name] for name in outcome.finals if name in context.plans]
    known = list(context.plans.values())
    if len(context.suite.tasks) > 1 and shared_plans(known) and not any(plan.role == "joint" for plan in finished):
        found.append({"what": "sharing", "name": "plans that share", "reason": "no plan that shares was finished"})
    elif outcome.control_plan and not outcome.controls and context.plans[outcome.control_plan].shuffled_control:
        found.append(
            {"what": "controls", "name": "controls with shuffled companions", "reason": "there was no time for any of them"}
        )
    if outcome.first_model:
        # Nothing of what the schedule gave was finished: its numbers say nothing here.
        reason = "the race did not finish it within the time limit"
        raced = [name for name, estimate in estimates.items() if estimate["kept"] and name not in outcome.finals]
        return [*found, *({"what": "plan", "name": name, "reason": reason} for name in raced)]
    # How many models see all rows is decided after the verdict, with the time that is left then: `model` says it.
    return [*found, *(dict(cut) for cut in context.schedule.cuts if cut["what"] != "refits")]


def still_improving(context: RunContext[Any], outcome: RaceOutcome, plan: str) -> bool:
    """Return whether at least half of a plan's trainings were still improving at their last step, or were cut; False of what
    is made of several plans, and of what is fitted in one go."""
    if plan in context.plans and context.plans[plan].fitted_at_once:
        return False
    return improves(context, outcome.finals.get(plan, {}))


def would_gain(context: RunContext[Any], outcome: RaceOutcome) -> set[str]:
    """Return the finalists that longer trainings would probably make better: those that were still improving, unless longer trainings
    were tried and were no better."""
    in_vain = {item["plan"]: not item["taken"] for item in outcome.attempts if item.get("longer")}
    return {name for name in outcome.finals if still_improving(context, outcome, name) and not in_vain.get(name, False)}

"""Before the race: measure what every plan costs, and leave out what breaks the user's limits, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.records import Plan
from graftwork.workflows.quantities import format_bytes, format_count
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.schedule import Estimate
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["broken_limit", "estimate_plans"]


def broken_limit(estimate: Estimate, settings: FitSettings) -> str:
    """Say which limit of the user a plan breaks; empty if none.

    Example:
        >>> broken_limit(Estimate(plan="big", parameters=6_000_000), FitSettings(max_params=5_000_000))
        '6 M parameters, more than --max-params 5 M'
    """
    if settings.max_params is not None and estimate.parameters > settings.max_params:
        return f"{format_count(estimate.parameters)} parameters, more than --max-params {format_count(settings.max_params)}"
    if settings.max_latency is not None and estimate.latency_ms > settings.max_latency:
        return f"{estimate.latency_ms:.3g} ms for one row, more than --max-latency {settings.max_latency:.3g} ms"
    if settings.max_memory is not None and estimate.peak_rss_bytes > settings.max_memory:
        return f"{format_bytes(estimate.peak_rss_bytes)} of memory, more than --max-memory {format_bytes(settings.max_memory)}"
    return ""


def estimate_plans(context: RunContext[Any], plans: Sequence[Plan]) -> dict[str, Estimate]:
    """Return an estimate for each plan; ``kept`` is False for those that cannot race, with the reason.

    The separate models stay in even if they break a limit: everything is measured against them, but they cannot be chosen then.

    Raises:
        GraftworkError: If the separate models cannot be trained at all.
    """
    jobs = {plan.name: context.maker.estimate(plan) for plan in plans}
    context.run.emit("phase", phase="estimate", jobs=len(jobs), plans=list(jobs))
    # only the user stops these: without estimates there is nothing to cut
    answers = context.run_jobs(list(jobs.values()), past_deadline=True)
    estimates = {}
    for plan in plans:
        answer = answers.get(jobs[plan.name].id)
        if answer is None or answer["status"] == "stopped":
            estimates[plan.name] = Estimate(plan=plan.name, kept=False, reason="there was no time to try it")
        elif answer["status"] != "ok":
            if plan.role == "reference":
                raise GraftworkError(
                    f"The plan {plan.name!r}, the reference of every comparison, cannot be trained: {answer['message']} "
                    f"Details: {context.run.job(jobs[plan.name].id)}."
                )
            estimates[plan.name] = Estimate(plan=plan.name, kept=False, reason=f"cannot be trained here: {answer['message']}")
        else:
            estimate = Estimate.from_json(answer["estimate"])
            broken = broken_limit(estimate, context.settings)
            # Without it there would be no scale; the reason keeps it from being chosen.
            if broken and plan.role == "reference":
                estimate = replace(estimate, reason=f"kept as the reference only: {broken}")
            elif broken:
                estimate = replace(estimate, kept=False, reason=broken)
            estimates[plan.name] = estimate
    return estimates

"""Before the race: measure what every plan costs, within a share of the time, and leave out what breaks the user's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import Plan
from graftwork.workflows.quantities import format_bytes, format_count, format_seconds
from graftwork.workflows.runs.context import GRACE, RunContext
from graftwork.workflows.runs.growing_fits import expected_seconds
from graftwork.workflows.runs.horizons import shared_plans
from graftwork.workflows.runs.jobs.estimate import ENOUGH
from graftwork.workflows.runs.plan_costs import Estimate, FirstFit
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["broken_limit", "estimate_plans"]

LONG_SHARE = 0.25
"""Share of the time of an estimate that a first model must have taken, so that its plan is not measured once more."""


def broken_limit(estimate: Estimate, settings: FitSettings) -> str:
    """Say which limit of the user a plan breaks; empty if none.

    Example:
        >>> broken_limit(Estimate(plan="big", parameters=6_000_000), FitSettings(max_params=5_000_000))
        '6 M parameters, more than --max-params 5 M'
    """
    if settings.max_params is not None and estimate.parameters > settings.max_params:
        return f"{format_count(estimate.parameters)} parameters, more than --max-params {format_count(settings.max_params)}"
    if settings.max_latency is not None and estimate.latency_ms > settings.max_latency:
        return f"{plain_number(estimate.latency_ms, 3)} ms for one row, more than --max-latency {plain_number(settings.max_latency, 3)} ms"
    if settings.max_memory is not None and estimate.peak_rss_bytes > settings.max_memory:
        return f"{format_bytes(estimate.peak_rss_bytes)} of memory, more than --max-memory {format_bytes(settings.max_memory)}"
    return ""


def estimate_plans(
    context: RunContext[Any],
    plans: Sequence[Plan],
    *,
    seconds: float | None = None,
    rows: int = 0,
    known: Mapping[str, FirstFit] | None = None,
) -> dict[str, Estimate]:
    """Return an estimate for each plan; ``kept`` is False for those that cannot race, with the reason.

    The separate models stay in even if they break a limit: everything is measured against them, but they cannot be chosen then.
    Plans that could not be measured in time cost what their first model did, if that was a fit in one go, and are taken for as slow
    as the others if not: the first rung measures them. One whose first
    steps had to be ended while most others were measured is left out, unless it is needed; and so is one that begins with a
    pretrained model, whose steps may take a hundred times as long as those of the others.

    Args:
        context: The run.
        plans: Plans to measure.
        seconds: Seconds for all of them together; None: no limit.
        rows: Most training rows to measure with; 0: all.
        known: What first models cost that were fitted in one go, by plan. One that took long and learned from as many rows as the
            race is not measured again, unless the user limits the time of a prediction.

    Raises:
        GraftworkError: If the separate models cannot be trained at all.
    """
    workers = max(1, context.settings.num_workers)
    each = ENOUGH if seconds is None else min(ENOUGH, 0.7 * seconds * workers / max(len(plans), 1))
    known, number = known or {}, len(context.suite.splits["train"])
    learned = min(rows, number) if rows else number
    settled = {
        name
        for name, first in known.items()
        if first.rows >= learned and first.seconds > LONG_SHARE * each and context.settings.max_latency is None
    }
    jobs = {
        plan.name: context.maker.estimate(plan, seconds=each, rows=rows, known=_seen(known.get(plan.name)))
        for plan in _most_needed_first(plans)
        if plan.name not in settled
    }
    context.run.emit("phase", phase="estimate", jobs=len(jobs), plans=list(jobs))
    # Only the user stops these, and their own time: without estimates there is nothing to cut.
    answers = context.run_jobs(list(jobs.values()), past_deadline=True, seconds=seconds)
    found = {
        plan.name: None if plan.name in settled else _estimate_of(context, plan, answers.get(jobs[plan.name].id))
        for plan in plans
    }
    measured = {name: estimate for name, estimate in found.items() if estimate is not None}
    needed = {plan.name for plan in plans if plan.role == "reference"} | {plan.name for plan in shared_plans(plans)}
    for plan in plans:
        if found[plan.name] is not None:
            continue
        if plan.name in known:
            costs = _by_first_fit(plan.name, known[plan.name], learned, list(measured.values()))
            found[plan.name] = _within_limits(costs, plan, context.settings)
            continue
        was_ended = jobs[plan.name].id in answers
        if was_ended and plan.name not in needed and len(measured) >= len(plans) / 2:
            reason = f"too slow: its first steps did not end within {format_seconds((1 + GRACE) * (seconds or 0.0))}"
            found[plan.name] = Estimate(plan=plan.name, measured=False, kept=False, reason=reason)
        elif plan.source == "pretrained" and plan.name not in needed and len(measured) >= max(3, len(plans) / 2):
            reason = "there was no time to measure the cost; give more with --time-limit"
            found[plan.name] = Estimate(plan=plan.name, measured=False, kept=False, reason=reason)
        else:
            found[plan.name] = _guess(plan.name, list(measured.values()))
    return {
        name: replace(estimate, is_made=name in known and known[name].rows == learned)
        for name, estimate in found.items()
        if estimate is not None
    }


def _most_needed_first(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans in the order in which they are measured, since the time may end before all are: the references, linear models
    on pretrained features (which cannot be guessed), one plan that shares, models of single tasks (trees), then the others."""
    first = [plan.name for plan in plans if plan.role == "reference"]
    first += [plan.name for plan in plans if plan.source == "pretrained" and plan.fitted_at_once]
    first += [plan.name for plan in shared_plans(plans)[:1]]
    first += [plan.name for plan in plans if plan.role == "independent" and plan.source == "scratch"]
    return sorted(plans, key=lambda plan: first.index(plan.name) if plan.name in first else len(first))


def _seen(first: FirstFit | None) -> tuple[int, float] | None:
    return None if first is None else (first.rows, first.seconds)


def _by_first_fit(plan: str, first: FirstFit, rows: int, others: Sequence[Estimate]) -> Estimate:
    """Return the costs of a plan that is fitted in one go and was measured by its first model alone.

    Args:
        plan: Its name.
        first: What the first model cost.
        rows: Rows that it will learn from.
        others: What was measured of other plans.
    """
    expected = expected_seconds([(first.rows, first.seconds)], max(rows, first.rows))
    return replace(
        _guess(plan, others),
        seconds_per_step=0.0,
        setup_seconds=expected,
        steps_per_epoch=1.0,
        sees_all_rows=True,
        parameters=first.parameters,
        peak_rss_bytes=first.peak_rss_bytes,
        # Counted up from fewer rows it is no measurement.
        measured=rows <= first.rows,
    )


def _guess(plan: str, others: Sequence[Estimate]) -> Estimate:
    """Return the costs of a plan that could not be measured: the median of those that were."""
    known = [one for one in others if one.kept]

    def middle(values: Sequence[float], otherwise: float) -> float:
        return median(values) if values else otherwise

    return Estimate(
        plan=plan,
        seconds_per_step=middle([one.seconds_per_step for one in known if one.seconds_per_step], 0.05),
        setup_seconds=middle([one.setup_seconds for one in known], 1.0),
        eval_seconds=middle([one.eval_seconds for one in known], 0.1),
        steps_per_epoch=max([one.steps_per_epoch for one in known], default=1.0),
        measured=False,
    )


def _estimate_of(context: RunContext[Any], plan: Plan, answer: Mapping[str, Any] | None) -> Estimate | None:
    """Return what was measured; None if the time did not suffice."""
    if answer is None or answer["status"] == "stopped":
        return None
    if answer["status"] != "ok":
        if plan.role == "reference":
            raise GraftworkError(
                f"The plan {plan.name!r}, the reference of every comparison, cannot be trained: {answer['message']} "
                f"Details: {context.run.job(context.maker.estimate(plan).id)}."
            )
        return Estimate(plan=plan.name, kept=False, reason=f"cannot be trained here: {answer['message']}")
    return _within_limits(Estimate.from_json(answer["estimate"]), plan, context.settings)


def _within_limits(estimate: Estimate, plan: Plan, settings: FitSettings) -> Estimate:
    """Return the estimate, of a plan that is left out if it breaks a limit of the user."""
    broken = broken_limit(estimate, settings)
    # Without it there would be no scale; the reason keeps it from being chosen.
    if broken and plan.role == "reference":
        return replace(estimate, reason=f"kept as the reference only: {broken}")
    return replace(estimate, kept=False, reason=broken) if broken else estimate

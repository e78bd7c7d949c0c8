"""One budget for all plans: the same steps for every training, or as many steps as fit into the same seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftwork.core.records import Plan
from graftwork.workflows.quantities import format_seconds
from graftwork.workflows.runs.horizons import MIN_STEPS, own_horizon
from graftwork.workflows.runs.plan_costs import VALIDATIONS, Estimate
from graftwork.workflows.runs.schedule import Schedule

__all__ = ["budget_sentence", "make_budget"]


def _steps_within(seconds: float, cost: Estimate) -> int:
    fixed = cost.setup_seconds + (1.5 + VALIDATIONS) * cost.eval_seconds
    return int((seconds - fixed) / max(cost.seconds_per_step, 1e-9))


def make_budget(
    plans: Sequence[Plan],
    *,
    steps: int | None,
    seconds: float | None,
    seeds: Sequence[int],
    estimates: Mapping[str, Estimate] | None = None,
) -> Schedule:
    """Return the steps of every plan's trainings.

    Args:
        plans: Plans that will be trained.
        steps: Steps of each training; plans that count something else (boosting rounds) keep the number that they set themselves.
        seconds: Seconds of each training, in place of ``steps``; the steps follow from what the first steps of each plan took.
        seeds: Seeds of the trainings.
        estimates: Costs of the plans; needed with ``seconds``.

    Returns:
        A schedule; ``left_out`` holds plans for which fewer than 8 steps fit, with the reason. Separate models are never left
        out.

    Raises:
        ValueError: If neither or both of ``steps`` and ``seconds`` are given.
    """
    if (steps is None) == (seconds is None):
        raise ValueError(f"Exactly one of `steps` and `seconds` must be given; got {steps} and {seconds}.")
    horizons, left_out, notes = {}, {}, []
    for plan in plans:
        own = own_horizon(plan)
        if steps is not None:
            horizons[plan.name] = own or steps
            continue
        assert seconds is not None
        cost = (estimates or {})[plan.name]
        fitting = _steps_within(seconds, cost)
        # Without the separate models there would be no scale, so they are trained however little fits.
        if fitting < MIN_STEPS and plan.role != "reference":
            left_out[plan.name] = (
                f"only {max(0, fitting)} steps fit into {format_seconds(seconds)}, fewer than {MIN_STEPS}; "
                "give more with --time-limit"
            )
            continue
        if fitting < MIN_STEPS:
            notes.append(
                f"Fewer than {MIN_STEPS} steps of `{plan.name}` fit into {format_seconds(seconds)}; it was given "
                f"{MIN_STEPS}, since everything is measured against it."
            )
        horizons[plan.name] = min(own or fitting, fitting) if fitting >= MIN_STEPS else MIN_STEPS
    return Schedule(horizons=horizons, seeds=tuple(seeds), control_seeds=1, left_out=left_out, notes=tuple(notes))


def budget_sentence(plans: Mapping[str, Plan], schedule: Schedule, *, steps: int | None, seconds: float | None) -> str:
    """Say what every training was given, and which plans count otherwise.

    Args:
        plans: Plans by name.
        schedule: From :func:`make_budget`.
        steps: As there.
        seconds: As there.
    """
    count = len(schedule.seeds)
    what = f"{count} seed{'s' * (count != 1)} of every plan"
    if steps is None:
        return (
            f"Budget: {format_seconds(seconds or 0.0)} for each training, {what}. The number of steps follows from the speed "
            "of each plan's first steps; the table below says what was measured."
        )
    others = [
        f"{name} ({'fitted in one go' if plans[name].fitted_at_once else f'{horizon:,} rounds'})"
        for name, horizon in schedule.horizons.items()
        if own_horizon(plans[name])
    ]
    exception = f" Plans that count otherwise: {', '.join(others)}." if others else ""
    return f"Budget: {steps:,} steps for each training, {what}.{exception}"

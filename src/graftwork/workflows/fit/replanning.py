"""The schedule after a rung: made again with measured times, so that one noisy estimate decides no race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from graftwork.data.samples import MOST_VALIDATION
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.effort import RaceBudget
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.plan_costs import Estimate, measured_cost
from graftwork.workflows.runs.schedule import Schedule, make_schedule

__all__ = ["WHOLE_SHARE", "known_costs", "race_budget", "replanned", "time_for_another_rung", "time_for_finals", "with_measured"]

WHOLE_SHARE = 0.3
"""Share of the time limit that is kept for models of all rows where finals see a part of them."""
RACE_SHARE, RACE_SHARE_ALONE = 0.9, 0.94
"""Share of the time limit that a schedule plans to use, and the same where no models of all rows follow, which take what is left; the
rest is for what costs do not see."""

TOO_LONG = 1.25
"""How many times longer than the time left another rung and the finals may be expected to take."""

Result = Mapping[str, Any]


def known_costs(context: RunContext[Any]) -> dict[str, Estimate]:
    """Return the estimates that the run holds."""
    names = {item.name for item in fields(Estimate)}
    stored = context.run.state.get("estimates", {})
    return {
        name: Estimate.from_json({key: item for key, item in value.items() if key in names}) for name, value in stored.items()
    }


def with_measured(
    context: RunContext[Any], costs: Mapping[str, Estimate], jobs: Mapping[str, Job], found: Mapping[str, Result], went_on: bool
) -> dict[str, Estimate]:
    """Return the costs as the jobs of a rung show them.

    Args:
        context: The run.
        costs: What was known before.
        jobs: ``{plan: job}``.
        found: ``{plan: its result}``.
        went_on: Whether the jobs went on from those of the rung before.
    """
    known = dict(costs)
    for name, result in found.items():
        if result["status"] != "ok" or name not in known:
            continue
        wall, steps = float(result.get("ledger", {}).get("wall_seconds", 0.0)), int(result.get("steps", 0))
        before = context.run.result(getattr(jobs[name], "continues", None) or "") if went_on else None
        # A job that found no checkpoint of its horizon began from nothing.
        if before is not None and result.get("began"):
            wall -= float(before.get("ledger", {}).get("wall_seconds", 0.0))
            steps -= int(before.get("steps", 0))
        # The ledger counts neither imports nor what a kill undid; learners without clock leave the seconds of the job.
        known[name] = measured_cost(known[name], wall if wall > 0 else float(result.get("seconds", 0.0)), steps)
    return known


def race_budget(context: RunContext[Any], *, control_tasks: int, rungs_done: int = 0, finals_next: bool = False) -> RaceBudget:
    """Return what the rest of the race may use.

    Args:
        context: The run.
        control_tasks: Number of tasks that get the control.
        rungs_done: Rungs that are behind.
        finals_next: Whether the finals follow at once, whatever rungs there would be.
    """
    settings, facts = context.settings, context.maker.facts
    folds, splits = facts.folds, context.suite.splits
    rows = len(splits["train"])
    left = seconds_left(context, RACE_SHARE if settings.refit else RACE_SHARE_ALONE)
    preset = settings.preset_values
    return RaceBudget(
        seeds=tuple(range(folds or settings.seeds)),
        steps=settings.steps,
        seconds=None if left is None else max(1.0, left),
        workers=max(1, settings.num_workers),
        control_tasks=control_tasks,
        refits=0 if not settings.refit else folds if folds and not settings.single else 1,
        one_plan=settings.single,
        finalists=preset.finalists,
        whole_controls=bool(folds),
        scale=rows / facts.race_rows if facts.race_rows else 1.0,
        refit_scale=folds / max(folds - 1, 1) if folds else sum(map(len, splits.values())) / max(rows, 1),
        race_rows=facts.race_rows,
        scored=_more_passes(context),
        whole_seconds=WHOLE_SHARE * (settings.time_limit or 0.0) if settings.refit else 0.0,
        rungs_done=rungs_done,
        finals_next=finals_next,
    )


def _more_passes(context: RunContext[Any]) -> float:
    """Return how many more passes over a sample's validation rows judging a whole training takes."""
    facts, splits = context.maker.facts, context.suite.splits
    if not facts.race_rows:
        return 0.0
    sample = min(len(splits["val"]), facts.race_rows // 3, MOST_VALIDATION)
    return max(0.0, (len(splits["val"]) + len(splits["test"])) / max(sample, 1) - 1.0)


def replanned(
    context: RunContext[Any],
    names: Sequence[str],
    costs: Mapping[str, Estimate],
    *,
    control_tasks: int,
    rung: int,
    finals_next: bool = False,
) -> RunContext[Any]:
    """Return the context with the schedule of what is ahead after a rung; without a time limit, or with fixed steps, as it is.

    Args:
        context: The run.
        names: Plans that go on.
        costs: What they cost, as measured.
        control_tasks: Number of tasks that get the control.
        rung: The rung that is behind, 0 is the first.
        finals_next: Whether the finals follow at once, whatever rungs there would be.
    """
    left = seconds_left(context)
    if left is None or not all(name in costs for name in names):
        return context

    def decide() -> dict[str, Any]:
        return _rest(context, names, costs, control_tasks, rung, finals_next).to_json()

    schedule = Schedule.from_json(decided(context, f"after rung {rung + 1}", decide))
    context.run.emit("replan", rung=rung, left=round(left, 1), **schedule.to_json())
    return context.planned(context.plans.values(), schedule)


def time_for_another_rung(
    context: RunContext[Any], names: Sequence[str], costs: Mapping[str, Estimate], *, control_tasks: int, rung: int
) -> bool:
    """Return whether the next rung and the finals fit into the time that is left, with the least that finals need.

    If not, the finals come at once: a rung that the end of the time cuts would leave plans without any test score, the one that is
    ahead perhaps among them.

    Args:
        context: The run.
        names: Plans that would race in the next rung.
        costs: What they cost, as measured.
        control_tasks: Number of tasks that get the control.
        rung: The rung that is behind, 0 is the first.
    """
    left = seconds_left(context)
    # Folds are for few rows: their trainings are short, and finals need all of them.
    if left is None or context.maker.facts.folds or not all(name in costs for name in names):
        return True

    def decide() -> bool:
        return _rest(context, names, costs, control_tasks, rung).seconds <= TOO_LONG * left

    return bool(decided(context, f"another rung after rung {rung + 1}", decide))


def time_for_finals(context: RunContext[Any]) -> bool:
    """Return whether what the schedule expects of the finals, and of what follows them, fits into the time that is left."""
    left = seconds_left(context)
    return left is None or bool(decided(context, "finals in time", lambda: context.schedule.seconds <= TOO_LONG * left))


def _rest(
    context: RunContext[Any],
    names: Sequence[str],
    costs: Mapping[str, Estimate],
    control_tasks: int,
    rung: int,
    finals_next: bool = False,
) -> Schedule:
    budget = race_budget(context, control_tasks=control_tasks, rungs_done=rung + 1, finals_next=finals_next)
    return make_schedule([context.plans[name] for name in names], costs, budget, context.schedule)

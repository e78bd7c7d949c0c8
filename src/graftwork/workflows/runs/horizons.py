"""How many steps every plan gets, and what a race of these steps costs. Pure functions of plans and measured costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graftwork.core.records import Plan
from graftwork.workflows.runs.effort import Effort, RaceBudget
from graftwork.workflows.runs.plan_costs import Estimate

__all__ = [
    "MIN_STEPS",
    "REFIT_PLANS",
    "RUNGS",
    "common_limits",
    "essential_plans",
    "horizons_of",
    "kept_groups",
    "own_horizon",
    "paid_once",
    "race_seconds",
    "shared_plans",
]

RUNGS = (0.25, 0.5)
"""Shares of the horizon after which plans are compared and the worse half leaves."""
MIN_STEPS = 8
LEAST_EPOCHS = 2
"""Epochs that plans are given before others are left out."""
DECENT_EPOCHS, DECENT_STEPS = 10, 400
"""A horizon for which controls, seeds and finalists give way; the longer of the two counts."""
MOST_EPOCHS, MOST_STEPS = 200, 3000
"""The longest horizon of the first finals; the longer of the two counts. Training stops earlier where validations no longer become
better, and longer trainings follow where they still do."""
SLOWEST = 2.0
"""A plan with a horizon of its own (trees) may take this many times the seconds of the reference."""
SLOWEST_PRETRAINED = 1.0
"""The same for plans that tune a pretrained backbone: slow per step, they get fewer steps."""
SLOWEST_JOINT = 3.0
"""The same for joint plans from scratch: one that is slower makes fewer steps than the others."""
REFIT_PLANS = 0.75
"""Share of the finalists' costs that one model on all rows of everything handed over is expected to take, if plans may be averaged."""
JOB_SECONDS = 0.05
"""What a job costs beside its training."""


def shared_plans(plans: Iterable[Plan]) -> list[Plan]:
    """Return the joint networks that start from the source of the reference, so that a difference to it is due to what tasks share.

    The best of them gets the control with shuffled companions, and affinities are measured with one. Joint trees and linear models
    are no networks: they race, and a difference to the reference says nothing about sharing.
    """
    plans = list(plans)
    source = next((plan.source for plan in plans if plan.role == "reference"), "scratch")
    # Without a reference among the plans, any kind of model may be meant.
    learner = next((plan.train.learner.path for plan in plans if plan.role == "reference"), "")
    return [plan for plan in plans if plan.role == "joint" and plan.source == source and learner in ("", plan.train.learner.path)]


def kept_groups(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Return groups of which the verdict needs the best plan: the references, and the independent plans by source (trees, fixed
    features)."""
    plans = list(plans)
    groups = [[plan for plan in plans if plan.role == "reference"]]
    for source in ("scratch", "pretrained"):
        groups.append([plan for plan in plans if plan.role == "independent" and plan.source == source])
    return [group for group in groups if group]


def own_horizon(plan: Plan) -> int | None:
    """Return the horizon that a plan sets for itself (boosting rounds, say); None if the schedule decides."""
    own = plan.train.training.get("max_steps")
    return int(own) if own is not None else None


def paid_once(plans: Iterable[Plan], costs: Mapping[str, Estimate]) -> dict[str, float]:
    """Return the seconds that every plan pays once. Features that several plans read (equal tuners) count for the first of them."""
    found: dict[str, float] = {}
    read: list[Any] = []
    for plan in plans:
        tuner, seconds = plan.train.tuning, costs[plan.name].once_seconds
        is_shared = plan.source == "pretrained" and seconds > 0
        found[plan.name] = 0.0 if is_shared and tuner in read else seconds
        if is_shared:
            read.append(tuner)
    return found


def common_limits(plans: Sequence[Plan], costs: Mapping[str, Estimate]) -> tuple[float, float, float]:
    """Return the shortest, a decent and the longest horizon of the plans from scratch."""
    epoch = max((costs[plan.name].steps_per_epoch for plan in plans if plan.source == "scratch"), default=1.0)
    return (
        max(LEAST_EPOCHS * epoch, MIN_STEPS),
        max(DECENT_EPOCHS * epoch, DECENT_STEPS),
        max(MOST_EPOCHS * epoch, MOST_STEPS),
    )


def _cheapest(plans: Iterable[Plan], costs: Mapping[str, Estimate]) -> str | None:
    shared = shared_plans(plans)
    # Networks first: joint trees are cheap, and say nothing about what a shared network would do.
    names = [plan.name for plan in shared if own_horizon(plan) is None] or [plan.name for plan in shared]
    return min(names, key=lambda name: costs[name].seconds_per_step, default=None)


def essential_plans(plans: Sequence[Plan], costs: Mapping[str, Estimate]) -> set[str]:
    """Return the plans without which a question stays open, or without which a model may be missing: the reference, the cheapest
    plan that shares, and those that are quick."""
    cheapest = _cheapest(plans, costs)
    return {plan.name for plan in plans if plan.role == "reference" or plan.quick or plan.name == cheapest}


def horizons_of(plans: Sequence[Plan], costs: Mapping[str, Estimate], common: float) -> dict[str, int]:
    """Return the steps of every plan if the reference makes ``common`` steps.

    Plans from scratch make as many, so that they are compared at equal steps. Exceptions: a joint plan that is much slower makes
    fewer; and where the reference is so slow that it makes less than a decent number of steps (hundreds of tasks), joint plans
    go on to that number within the time of the reference.
    """
    reference = max((costs[plan.name].seconds_per_step for plan in plans if plan.role == "reference"), default=0.0)
    # Without the reference among the plans nothing limits the others.
    whole = common * reference if reference > 0 else math.inf
    _, decent, _ = common_limits(plans, costs)
    cheapest = _cheapest(plans, costs)
    horizons = {}
    for plan in plans:
        cost = costs[plan.name]
        ceiling = max(MIN_STEPS, MOST_STEPS, MOST_EPOCHS * cost.steps_per_epoch)
        own, fair = own_horizon(plan), whole / max(cost.seconds_per_step, 1e-9)
        if plan.source == "pretrained":  # heads on stored features are nearly free: they take what the reference's time allows
            steps = min(own or ceiling, SLOWEST_PRETRAINED * fair)
        elif own is not None:
            steps = min(own, SLOWEST * fair)
        elif plan.role == "reference":
            steps = min(common, ceiling)
        else:
            steps = max(common, min(decent, fair))
            if plan.name != cheapest:
                steps = min(steps, SLOWEST_JOINT * fair)
            steps = min(steps, ceiling)
        horizons[plan.name] = max(MIN_STEPS if own is None else min(MIN_STEPS, own), int(steps))
    return horizons


def _kept_part(plan: Plan, horizons: Mapping[str, int], before: Mapping[str, int] | None) -> float:
    """Return the share of the rungs' work that a training with these horizons can go on from; 1 if nothing changed."""
    earlier, now = (before or horizons).get(plan.name, 0), horizons[plan.name]
    if earlier == now:
        return 1.0
    # What sets its own horizon adds rounds to those that are there; schedules of learning rates begin anew.
    return min(1.0, earlier / max(now, 1)) if own_horizon(plan) is not None else 0.0


def race_seconds(
    plans: Sequence[Plan],
    costs: Mapping[str, Estimate],
    horizons: Mapping[str, int],
    budget: RaceBudget,
    effort: Effort,
    before: Mapping[str, int] | None = None,
) -> float:
    """Return the expected seconds of all that is ahead: rungs, finals, controls, affinity, models on all rows.

    Args:
        plans: Plans that race.
        costs: What they cost.
        horizons: Steps of their full trainings.
        budget: What the race may use.
        effort: Numbers of trainings.
        before: Horizons of the rungs that are behind; None: the same ones. A training with another horizon begins anew.
    """

    def seconds(plan: Plan, part: float, scale: float = 1.0, passes: float = 0.0) -> float:
        return costs[plan.name].seconds(horizons[plan.name], part, scale, passes) + JOB_SECONDS

    def rung(plan: Plan, number: int) -> float:
        if own_horizon(plan) != 1:
            return seconds(plan, RUNGS[number] - (RUNGS[number - 1] if number else 0.0))
        # Fitted in one go it is done in the first rung, or before.
        return JOB_SECONDS if number or costs[plan.name].is_made else seconds(plan, 1.0)

    whole = {plan.name: seconds(plan, 1.0, budget.scale, budget.scored) for plan in plans}
    on_all = {plan.name: seconds(plan, 1.0, budget.scale * budget.refit_scale) for plan in plans}
    references = [group[0] for group in kept_groups(plans)]
    others = sorted((plan for plan in plans if plan not in references), key=lambda plan: -whole[plan.name])
    total = sum(paid_once(plans, costs).values())
    # The first seed goes on from the last rung, so that much of its training is paid for; not on other rows.
    last = budget.rungs_done if budget.finals_next else len(RUNGS)
    share = RUNGS[last - 1] if budget.scale == 1.0 else 0.0
    begun = {
        plan.name: share * _kept_part(plan, horizons, before) if own_horizon(plan) != 1 else math.ceil(share) for plan in plans
    }
    ahead = {name: (effort.seeds - begun[name]) * cost for name, cost in whole.items()}
    if budget.rungs_done < 1:
        total += sum(rung(plan, 0) for plan in plans)
    if budget.rungs_done < len(RUNGS) and not budget.finals_next:
        # Who will be ahead is unknown; the slowest half is assumed, so that the schedule does not promise too much.
        second = references + others[: math.ceil(len(plans) / 2)]
        total += sum(rung(plan, 1) for plan in second)
        free = max(0, min(effort.finalists, len(others)))

        def of_finalists(costs: Mapping[str, float]) -> float:
            # Who survives is not known yet: count the more expensive of the possible finalists half, the mean half.
            slowest = sum(costs[plan.name] for plan in others[:free])
            mean = free * sum(costs[plan.name] for plan in others) / len(others) if others else 0.0
            return sum(costs[plan.name] for plan in references) + (slowest + mean) / 2
    else:

        def of_finalists(costs: Mapping[str, float]) -> float:
            return sum(costs.values())

    total += of_finalists(ahead)
    # One plan learns from all rows, or those that are averaged do: rarely every finalist.
    dearest = max(on_all.values(), default=0.0)
    total += effort.refits * (dearest if budget.one_plan else max(dearest, REFIT_PLANS * of_finalists(on_all)))
    shared = shared_plans(plans)
    if shared:
        cost = sum(whole[plan.name] for plan in shared) / len(shared)
        # 0.3 of a training for the affinities, and what it takes to measure them.
        total += cost * (effort.control_tasks * effort.control_seeds + 0.4)
    # More workers do not make a single training shorter, and models on all rows follow the verdict.
    longest = max(((1 - begun[name]) * whole[name] for name in whole), default=0.0)
    if effort.refits:
        longest += dearest
    return max(total / max(budget.workers, 1), longest)

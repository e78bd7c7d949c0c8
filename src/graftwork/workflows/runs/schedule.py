"""The schedule: who trains how long, decided once before the race and stored, so that a resumed run repeats it.

All plans that start from scratch share one horizon, so that the comparison with separate models is one at equal steps. Plans that
are much slower per step (fully tuned backbones) get fewer steps rather than nothing; plans that cannot even see every row once
are left out, and the reason is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from graftwork.core.records import Plan

__all__ = [
    "NO_SCHEDULE",
    "RUNGS",
    "Estimate",
    "RaceBudget",
    "Schedule",
    "kept_groups",
    "make_schedule",
    "own_horizon",
    "shared_plans",
]

RUNGS = (0.25, 0.5)
"""Shares of the horizon after which plans are compared and the worse half leaves."""
FINALISTS = 3
MAX_EPOCHS = 60
MIN_STEPS = 8
SLOWEST = 2.0
"""A plan with a horizon of its own (trees) may take this many times the seconds of the reference."""
SLOWEST_PRETRAINED = 1.0
"""The same for plans that tune a pretrained backbone: slow per step, they get fewer steps."""
VALIDATIONS = 8
"""How often a learner looks at its validation rows in one training, for the cost model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a few steps of a plan cost."""

    plan: str
    seconds_per_step: float = 0.0
    setup_seconds: float = 0.0
    """Building the model and reading the suite, with warm caches; and fitting it, for what is fitted in one go."""
    eval_seconds: float = 0.0
    """One pass over the validation rows."""
    steps_per_epoch: float = 1.0
    parameters: int = 0
    peak_rss_bytes: int = 0
    latency_ms: float = 0.0
    kept: bool = True
    reason: str = ""
    """Why it is left out or cut; empty if it is not."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**value)

    def seconds(self, horizon: float, share: float = 1.0) -> float:
        """Return the seconds of a job that trains ``share`` of ``horizon`` steps."""
        return self.setup_seconds + share * horizon * self.seconds_per_step + (1.5 + VALIDATIONS * share) * self.eval_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The race as decided before it starts."""

    horizons: Mapping[str, int]
    """Steps of a full training, by plan, in the order of the portfolio."""
    seeds: tuple[int, ...]
    control_seeds: int
    """Seeds of the shuffled control; 0 leaves it out."""
    finalists: int = FINALISTS
    seconds: float = 0.0
    """Expected seconds until the verdict."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Plans that were too slow, with the reason."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        # JSON has no tuples, and records compare by value.
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**fields)

    def rung_steps(self, plan: str, rung: int) -> int:
        """Return the step at which a plan stops at a rung (0 is the first)."""
        return max(1, round(self.horizons[plan] * RUNGS[rung]))


NO_SCHEDULE = Schedule(horizons={}, seeds=(), control_seeds=1)
"""Before anything is decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceBudget:
    """What a race may use."""

    seeds: tuple[int, ...]
    """Seeds of the finals."""
    steps: int | None
    """Horizon that the user fixed; None lets the time decide."""
    seconds: float | None
    """Seconds left for the race; None: no limit."""
    workers: int
    """Processes that train at the same time."""
    control_tasks: int
    """Number of tasks that get the shuffled control."""
    refits: int = 0
    """Trainings of every chosen plan on all rows, once the verdict is there."""


def shared_plans(plans: Iterable[Plan]) -> list[Plan]:
    """Return the joint plans that start from the source of the reference, so that a difference to it is due to what tasks share.

    The best of them gets the control with shuffled companions, and affinities are measured with one.
    """
    plans = list(plans)
    source = next((plan.source for plan in plans if plan.role == "reference"), "scratch")
    return [plan for plan in plans if plan.role == "joint" and plan.source == source]


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


def _horizons(plans: Sequence[Plan], costs: Mapping[str, Estimate], common: float) -> dict[str, int]:
    reference = max((costs[plan.name].seconds_per_step for plan in plans if plan.role == "reference"), default=0.0)
    # Without the reference among the plans nothing limits the others.
    whole = common * reference if reference > 0 else math.inf
    horizons = {}
    for plan in plans:
        cost = costs[plan.name]
        ceiling = max(MIN_STEPS, MAX_EPOCHS * cost.steps_per_epoch)
        own = own_horizon(plan)
        if plan.source == "pretrained":  # heads on stored features are nearly free: they take what the reference's time allows
            steps = min(own or ceiling, SLOWEST_PRETRAINED * whole / max(cost.seconds_per_step, 1e-9))
        elif own is not None:
            steps = min(own, SLOWEST * whole / max(cost.seconds_per_step, 1e-9))
        else:
            steps = min(common, ceiling)
        horizons[plan.name] = max(MIN_STEPS, int(steps))
    return horizons


def _total_seconds(
    plans: Sequence[Plan],
    costs: Mapping[str, Estimate],
    horizons: Mapping[str, int],
    budget: RaceBudget,
    control_seeds: int,
) -> float:
    """Return the expected seconds of rungs, finals, controls and affinity."""
    whole = {plan.name: costs[plan.name].seconds(horizons[plan.name]) for plan in plans}

    def share(plan: Plan, part: float) -> float:
        return costs[plan.name].seconds(horizons[plan.name], part)

    references = [group[0] for group in kept_groups(plans)]
    others = sorted((plan for plan in plans if plan not in references), key=lambda plan: -whole[plan.name])
    total = sum(share(plan, RUNGS[0]) for plan in plans)
    # Who will be ahead is unknown; the slowest half is assumed, so that the schedule does not promise too much.
    second = references + others[: math.ceil(len(plans) / 2)]
    total += sum(share(plan, RUNGS[1] - RUNGS[0]) for plan in second)
    # who survives is not known yet: count the more expensive of the possible finalists half, the mean half
    free = max(0, min(FINALISTS, len(others)))
    slowest = sum(whole[plan.name] for plan in others[:free])
    mean = free * sum(whole[plan.name] for plan in others) / len(others) if others else 0.0
    finals = sum(whole[plan.name] for plan in references) + (slowest + mean) / 2
    # The first seed goes on from the last rung, so that much of its training is paid for.
    total += finals * (len(budget.seeds) - RUNGS[1] + budget.refits)
    shared = shared_plans(plans)
    if shared:
        cost = sum(whole[plan.name] for plan in shared) / len(shared)
        # 0.3 of a training for the affinities, and what it takes to measure them.
        total += cost * (budget.control_tasks * control_seeds + 0.4)
    longest = max(whole.values(), default=0.0)
    # More workers do not make a single training shorter.
    return max(total / max(budget.workers, 1), longest)


def make_schedule(plans: Sequence[Plan], estimates: Mapping[str, Estimate], budget: RaceBudget) -> Schedule:
    """Decide horizons so that the whole race fits.

    Args:
        plans: Plans that may run, in the order of the portfolio.
        estimates: Their costs.
        budget: What the race may use.

    Returns:
        The schedule; with ``steps`` it depends on nothing measured.
    """
    # A copy of the list: plans are removed from it below.
    plans, left_out, notes, seeds = list(plans), {}, [], budget.seeds
    if budget.steps is not None:
        horizons = {plan.name: own_horizon(plan) or budget.steps for plan in plans}
        expected = _total_seconds(plans, estimates, horizons, budget, len(seeds))
        return Schedule(horizons=horizons, seeds=seeds, control_seeds=len(seeds), seconds=expected)

    limit = math.inf if budget.seconds is None else budget.seconds
    epoch = max((estimates[plan.name].steps_per_epoch for plan in plans if plan.source == "scratch"), default=1.0)

    def expected_at(common: float, control_seeds: int) -> float:
        return _total_seconds(plans, estimates, _horizons(plans, estimates, common), budget, control_seeds)

    def fits(control_seeds: int, common: float) -> bool:
        return expected_at(common, control_seeds) <= limit

    shortest, longest = max(2 * epoch, MIN_STEPS), max(MAX_EPOCHS * epoch, MIN_STEPS)
    while not fits(1, shortest):
        droppable = [plan for plan in plans if plan.role != "reference"]
        # A race needs somebody beside the reference; better a late one than none.
        if len(droppable) <= 1:
            break
        slowest = max(droppable, key=lambda plan: estimates[plan.name].seconds(shortest))
        cost = estimates[slowest.name].seconds_per_step
        left_out[slowest.name] = f"too slow: {cost:.2g} s per step do not fit into the time limit"
        plans.remove(slowest)
    while True:
        # Controls on all seeds only where they cost no plan a single step.
        control_seeds = len(seeds) if fits(len(seeds), longest) else 1
        common = _largest(partial(fits, control_seeds), float(MIN_STEPS), longest)
        horizons = _horizons(plans, estimates, common)
        unfinished = _first_that_cannot_see_all(plans, estimates, horizons)
        if unfinished is None:
            break
        left_out[unfinished.name] = (
            f"too slow: {estimates[unfinished.name].seconds_per_step:.2g} s per step allow only "
            f"{horizons[unfinished.name]} steps, fewer than the "
            f"{math.ceil(estimates[unfinished.name].steps_per_epoch)} that show every row once"
        )
        # Its time goes to the others, so everything is decided again.
        plans.remove(unfinished)
    if common < 2 * epoch:
        notes.append(
            "The time limit is short for this suite: the models see every row less than twice. Give more with --time-limit."
        )
    return Schedule(
        horizons=horizons,
        seeds=seeds,
        control_seeds=control_seeds,
        seconds=expected_at(common, control_seeds),
        left_out=left_out,
        notes=tuple(notes),
    )


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest number in ``[low, high]`` that fits, by bisection; ``low`` if none does."""
    if fits(high):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _first_that_cannot_see_all(
    plans: Sequence[Plan], estimates: Mapping[str, Estimate], horizons: Mapping[str, int]
) -> Plan | None:
    """Return the first plan whose horizon is shorter than an epoch while that of the separate models is not."""
    # The portfolio puts the reference first.
    reference = horizons[plans[0].name]
    for plan in plans:
        # Rounds of boosting are no epochs: every one sees all rows.
        own = plan.role != "reference" and own_horizon(plan) is None
        if own and horizons[plan.name] < min(estimates[plan.name].steps_per_epoch, reference):
            return plan
    return None

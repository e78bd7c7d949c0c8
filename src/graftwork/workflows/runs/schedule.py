"""The schedule: who trains how long, decided before the race and again after each of its rungs, with measured times, and stored, so
that a resumed run repeats it.

Too little time takes, in this order: controls and averaged models, finalists and seeds down to three, steps, plans that answer no
question (the dearest first), and at last all seeds but one. The reference, the cheapest plan that shares and quick plans always
race, and so do plans that are fitted in one go in a small part of the time: networks make fewer steps for them. A quick plan whose
one fit would take a large part of the time on this suite is not quick.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import Plan
from graftwork.workflows.runs.effort import (
    FINALISTS,
    LEAST_PART,
    Effort,
    RaceBudget,
    efforts,
    full_effort,
    least_efforts,
    shortened,
    shortened_to,
)
from graftwork.workflows.runs.horizons import (
    MIN_STEPS,
    RUNGS,
    common_limits,
    essential_plans,
    horizons_of,
    own_horizon,
    race_seconds,
)
from graftwork.workflows.runs.plan_costs import Estimate

__all__ = ["NO_SCHEDULE", "Schedule", "make_schedule"]

SMALL_SHARE = 0.1
"""Share of the time that all trainings of a plan that is fitted in one go may take, so that it stays whatever else must go."""
FEATURES_SHARE = 0.5
"""The same for linear models on the features of a pretrained backbone, which are computed in that time as well: where they fit,
they are often the best models of texts and pictures."""
LARGE_SHARE = 0.3
"""Share of the time that one training of a quick plan that is fitted in one go may take: a slower one is not quick here, and would
leave the others without steps."""
KEPT_RATIO = (0.7, 1.5)
"""Horizons that measured times would change by less than this stay: a training that goes on is cheaper than one from the start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The race as decided before it starts, or before its next part."""

    horizons: Mapping[str, int]
    """Steps of a full training, by plan, in the order of the portfolio."""
    seeds: tuple[int, ...]
    control_seeds: int
    """Seeds of the shuffled control; 0 leaves it out."""
    control_tasks: int = 8
    """Most tasks with a control."""
    finalists: int = FINALISTS
    refits: int | None = None
    """Models of each chosen plan that see all rows; None: as many as the settings say."""
    final_rows: int = 0
    """Most training rows that finals see; 0: all. On very large suites a decent training of all rows may not fit into the time."""
    seconds: float = 0.0
    """Expected seconds until the verdict."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Plans that were too slow, with the reason."""
    cuts: tuple[Mapping[str, Any], ...] = ()
    """What was given up for lack of time besides plans; see :func:`graftwork.workflows.runs.effort.shortened`."""
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

    def with_seed(self, seed: int, *, whole_controls: bool = False) -> Self:
        """Return the schedule with one more seed, which it had given up.

        Args:
            seed: The seed, or, with folds, the number of the training.
            whole_controls: Whether a control needs all seeds, as it does with folds: then those that there are get one more, too.
        """
        given = {"seeds": len(self.seeds) + 1}
        if whole_controls and self.control_seeds:
            given["control_seeds"] = len(self.seeds) + 1
        cuts = (shortened_to(cut, given[cut["what"]]) if cut["what"] in given else cut for cut in self.cuts)
        kept = tuple(cut for cut in cuts if cut["given"] < cut["planned"])
        controls = given.get("control_seeds", self.control_seeds)
        return dataclasses.replace(self, seeds=(*self.seeds, seed), control_seeds=controls, cuts=kept)

    def rung_steps(self, plan: str, rung: int) -> int:
        """Return the step at which a plan stops at a rung (0 is the first)."""
        return max(1, round(self.horizons[plan] * RUNGS[rung]))


NO_SCHEDULE = Schedule(horizons={}, seeds=(), control_seeds=1)
"""Before anything is decided."""


def make_schedule(
    plans: Sequence[Plan], estimates: Mapping[str, Estimate], budget: RaceBudget, before: Schedule | None = None
) -> Schedule:
    """Decide horizons and effort so that the whole race fits.

    Args:
        plans: Plans that may run, in the order of the portfolio.
        estimates: Their costs.
        budget: What the race may use.
        before: The schedule so far, if the race has begun: horizons that would change little stay, and no plan is left out.

    Returns:
        The schedule; with ``steps`` it depends on nothing measured.
    """
    # A copy of the list: plans are removed from it below.
    plans, left_out = list(plans), dict(before.left_out) if before else {}
    full = full_effort(budget)
    if budget.steps is not None:
        fixed = {plan.name: own_horizon(plan) or budget.steps for plan in plans}
        return _schedule(fixed, budget, full, race_seconds(plans, estimates, fixed, budget, full), {})
    limit = math.inf if budget.seconds is None else budget.seconds
    full_scale = budget.scale * budget.refit_scale
    budget = _with_rows_in_time(plans, estimates, budget, limit)
    if budget.final_rows:
        wanted = _whole_seconds(plans, estimates, full_scale)
        # What cannot be done in that time is no reason to keep it.
        if LEAST_PART * wanted / max(budget.workers, 1) <= budget.whole_seconds:
            limit = max(limit / 2, limit - min(budget.whole_seconds, wanted))
    full = full_effort(budget)

    def made_with(horizons: Mapping[str, int]) -> Mapping[str, int] | None:
        """Return the horizons of the rungs; None if they stay, since they would change little."""
        return before.horizons if before is not None and not _stay(horizons, before) else None

    def expected(common: float, effort: Effort) -> float:
        horizons = horizons_of(plans, estimates, common)
        return race_seconds(plans, estimates, horizons, budget, effort, made_with(horizons))

    def horizon_of(effort: Effort, low: float, high: float) -> float:
        return _largest(lambda common: expected(common, effort) <= limit, low, high)

    shortest, decent, longest = common_limits(plans, estimates)
    if before is None:
        small = _small_plans(plans, estimates, budget)
        large = _large_plans(plans, estimates, limit)
        _drop_slow(
            plans, estimates, left_out, lambda: expected(shortest, _smallest_fair(budget)) <= limit, shortest, small, large
        )
    effort = _affordable(budget, lambda one: expected(longest if one == full else min(decent, longest), one) <= limit)
    if effort is None:
        effort = _smallest_fair(budget)
        if expected(shortest, effort) > limit:
            effort = _least(budget, lambda one: expected(shortest, one) <= limit)
    common = horizon_of(effort, float(MIN_STEPS), longest)
    if before is None:
        for plan in _that_cannot_learn(plans, estimates, horizons_of(plans, estimates, common)):
            steps = horizons_of(plans, estimates, common)[plan.name]
            left_out[plan.name] = (
                f"too slow: {plain_number(estimates[plan.name].seconds_per_step, 2)} s per step allow only {steps} steps, fewer than half of the "
                f"{math.ceil(estimates[plan.name].steps_per_epoch)} that show every row once"
            )
            plans.remove(plan)
        # The time of those that left goes to the others.
        common = horizon_of(effort, float(MIN_STEPS), longest)
    horizons = horizons_of(plans, estimates, common)
    if before is not None and (common < shortest or _are_finals_next(budget)):
        longer, going_on = _no_shorter_than_made(horizons, before, budget), before.horizons
        # Further seeds of networks would begin anew, for which there is no time; what sets its own horizon only adds rounds.
        if any(longer[plan.name] != horizons[plan.name] for plan in plans if own_horizon(plan) is None):
            effort = _least(budget, lambda one: race_seconds(plans, estimates, longer, budget, one, going_on) <= limit)
            horizons = longer
        elif common < shortest:
            horizons = longer
    if before is not None:
        # A plan that left after the first rung and comes back has no horizon there.
        kept = {name: before.horizons.get(name, steps) for name, steps in horizons.items()}

        def fits(one: Effort) -> bool:
            return race_seconds(plans, estimates, kept, budget, one) <= limit

        # Shorter trainings from the start are no better than going on, where that fits.
        is_shorter = all(steps <= kept[name] for name, steps in horizons.items())
        if _stay(horizons, before) or (is_shorter and fits(effort)):
            horizons, effort = kept, _affordable(budget, fits) or _least(budget, fits)
    notes = []
    if common < shortest:
        notes.append(
            "The time limit is short for this suite: the models see every row less than twice. Give more with --time-limit."
        )
    seconds = race_seconds(plans, estimates, horizons, budget, effort, before.horizons if before else None)
    return _schedule(horizons, budget, effort, seconds, left_out, notes)


def _schedule(
    horizons: Mapping[str, int],
    budget: RaceBudget,
    effort: Effort,
    seconds: float,
    left_out: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Schedule:
    return Schedule(
        horizons=horizons,
        seeds=budget.seeds[: effort.seeds],
        control_seeds=effort.control_seeds,
        control_tasks=effort.control_tasks,
        finalists=effort.finalists,
        refits=effort.refits,
        final_rows=budget.final_rows,
        seconds=seconds,
        left_out=left_out,
        cuts=tuple(shortened(full_effort(budget), effort)),
        notes=tuple(notes),
    )


def _no_shorter_than_made(horizons: Mapping[str, int], before: Schedule, budget: RaceBudget) -> dict[str, int]:
    """Return the horizons, with those before where the new ones are shorter than what the rungs have made: a training from the start
    would end with a worse model than the one that is there. It goes on, and is judged as far as it comes."""
    # What was learned from fewer rows is no start for finals on more.
    if not budget.rungs_done or budget.final_rows != budget.race_rows:
        return dict(horizons)
    made = RUNGS[budget.rungs_done - 1]
    return {
        name: before.horizons[name] if steps <= made * before.horizons.get(name, 0) else steps for name, steps in horizons.items()
    }


def _are_finals_next(budget: RaceBudget) -> bool:
    return budget.finals_next or budget.rungs_done >= len(RUNGS)


def _with_rows_in_time(plans: Sequence[Plan], estimates: Mapping[str, Estimate], budget: RaceBudget, limit: float) -> RaceBudget:
    """Return the budget with so many rows for finals as a decent training allows: plans that see all rows in every step (trees)
    would otherwise stop after a few rounds, and take the steps of all others with them."""
    if budget.scale <= 1.0 or not budget.race_rows:
        return budget
    _, decent, longest = common_limits(plans, estimates)
    horizons = horizons_of(plans, estimates, min(decent, longest))
    # One seed: rows are worth more than seeds.
    *_, one_seed, _ = least_efforts(budget)
    scale = budget.scale
    while scale > 1.0 and race_seconds(plans, estimates, horizons, dataclasses.replace(budget, scale=scale), one_seed) > limit:
        scale = max(1.0, scale / 2)
    if scale == budget.scale:
        return budget
    # The seconds of models on all rows are kept apart.
    return dataclasses.replace(budget, scale=scale, refits=0, final_rows=round(scale * budget.race_rows))


def _whole_seconds(plans: Sequence[Plan], estimates: Mapping[str, Estimate], scale: float) -> float:
    """Return the seconds of the longest training on all rows, ``scale`` times as many as where plans were measured: of plans that
    see all rows in every step, since the others cost the same on any number."""
    return max(
        (
            estimates[plan.name].seconds(own_horizon(plan) or MIN_STEPS, scale=scale)
            for plan in plans
            if estimates[plan.name].sees_all_rows
        ),
        default=0.0,
    )


def _smallest_fair(budget: RaceBudget) -> Effort:
    """Return the smallest effort on which something may be asserted."""
    return list(efforts(budget))[-1]


def _affordable(budget: RaceBudget, fits: Callable[[Effort], bool]) -> Effort | None:
    return next((effort for effort in efforts(budget) if fits(effort)), None)


def _least(budget: RaceBudget, fits: Callable[[Effort], bool]) -> Effort:
    """Return the largest of the smallest efforts that fits; the last one if none does."""
    *larger, last = least_efforts(budget)
    return next((effort for effort in larger if fits(effort)), last)


def _drop_slow(
    plans: list[Plan],
    estimates: Mapping[str, Estimate],
    left_out: dict[str, str],
    fits: Callable[[], bool],
    shortest: float,
    small: set[str],
    large: set[str],
) -> None:
    """Remove the plans with the highest costs until the rest fits; those that answer a question stay, and ``small`` ones, but not
    ``large`` ones."""
    while not fits():
        needed = (essential_plans(plans, estimates) | small) - large
        droppable = [plan for plan in plans if plan.name not in needed]
        # A race needs somebody beside the reference; better a late one than none.
        if not droppable or len(plans) <= 2:
            return
        steps = horizons_of(plans, estimates, shortest)
        slowest = max(
            droppable, key=lambda plan: estimates[plan.name].seconds(steps[plan.name]) + estimates[plan.name].once_seconds
        )
        cost = estimates[slowest.name]
        left_out[slowest.name] = (
            f"too slow: {_cost_words(cost)} do not fit into the time limit"
            if cost.measured
            else "there was no time to measure the cost; give more with --time-limit"
        )
        plans.remove(slowest)


def _small_plans(plans: Sequence[Plan], estimates: Mapping[str, Estimate], budget: RaceBudget) -> set[str]:
    """Return the plans that are fitted in one go and cost little in all: closed forms and forests on few rows, linear models on
    features that are computed once."""
    seconds = math.inf if budget.seconds is None else budget.seconds * max(1, budget.workers)
    seeds = _smallest_fair(budget).seeds
    small = set()
    for plan in plans:
        cost = estimates[plan.name]
        share = FEATURES_SHARE if plan.source == "pretrained" else SMALL_SHARE
        # The first training may be there; the last one is on all rows.
        trainings = seeds + (0 if cost.is_made else 1)
        if own_horizon(plan) == 1 and cost.once_seconds + trainings * cost.seconds(1) <= share * seconds:
            small.add(plan.name)
    return small


def _large_plans(plans: Sequence[Plan], estimates: Mapping[str, Estimate], limit: float) -> set[str]:
    """Return the quick plans that are fitted in one go and are not quick on this suite; those that are made may race."""
    return {
        plan.name
        for plan in plans
        if plan.quick
        and own_horizon(plan) == 1
        and not estimates[plan.name].is_made
        and estimates[plan.name].seconds(1) > LARGE_SHARE * limit
    }


def _cost_words(cost: Estimate) -> str:
    if cost.once_seconds > 1.0:
        return f"about {plain_number(cost.once_seconds, 3)} s to compute its features"
    return (
        f"{plain_number(cost.seconds_per_step, 2)} s per step"
        if cost.seconds_per_step
        else f"{plain_number(cost.setup_seconds, 2)} s to fit it"
    )


def _stay(horizons: Mapping[str, int], before: Schedule) -> bool:
    """Return whether the horizons before stay: a training that goes on is cheaper than one from the start."""
    return all(_is_close(before.horizons.get(name, steps), steps) for name, steps in horizons.items())


def _is_close(before: int, now: int) -> bool:
    return KEPT_RATIO[0] <= now / max(before, 1) <= KEPT_RATIO[1]


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest number in ``[low, high]`` that fits, by bisection; ``low`` if none does."""
    if fits(high):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _that_cannot_learn(plans: Sequence[Plan], estimates: Mapping[str, Estimate], horizons: Mapping[str, int]) -> list[Plan]:
    """Return the plans that answer no question and whose horizon is shorter than half an epoch while that of the reference is
    not."""
    needed = essential_plans(plans, estimates)
    # The portfolio puts the reference first.
    reference = horizons[plans[0].name]
    return [
        plan
        for plan in plans
        # Rounds of boosting are no epochs: every one sees all rows.
        if plan.name not in needed
        and own_horizon(plan) is None
        and horizons[plan.name] < 0.5 * min(estimates[plan.name].steps_per_epoch, reference)
    ]

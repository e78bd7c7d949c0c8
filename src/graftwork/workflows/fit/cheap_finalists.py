"""Plans that go into the finals whatever their rank, because leaving them out would save next to nothing, and the plan whose finals
come first.

Closed forms, forests and trees on small tables are trained in a fraction of the time of a network. They may help an average, and they
are what a user would compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.horizons import RUNGS, own_horizon
from graftwork.workflows.runs.plan_costs import Estimate

__all__ = ["CHEAP_SHARE", "cheap_finalists", "leading_finalist"]

CHEAP_SHARE = 0.03
"""Share of the time left that all trainings of such a plan may take, those for the model that is handed over included."""


CHEAP_SHARE_TOGETHER = 0.2
"""Share of the time left that the trainings of all of them together may take; those of very cheap ones may be more."""

LEADER_SHARE, LONE_LEADER_SHARE = 0.4, 0.8
"""Share of the time left that all finals of the plan that is ahead may take, so that they come before those of the others; and the
same if each plan has one final: plans whose finals the deadline cuts are then judged as far as they came."""


def leading_finalist(
    context: RunContext[Any], names: Sequence[str], scores: Mapping[str, float], costs: Mapping[str, Estimate]
) -> list[str]:
    """Return the finalist that is ahead, if its finals leave most of the time to the others; empty if not.

    It is the likely choice: cut by a deadline, it could not be compared.

    Args:
        context: The run.
        names: The finalists.
        scores: Their scores in the last rung, more is better.
        costs: What plans cost, as measured.
    """
    leader = max((name for name in names if name in scores and name in costs), key=lambda name: scores[name], default="")
    left = seconds_left(context)
    if not leader or left is None:
        return []

    def decide() -> bool:
        each = costs[leader].seconds(context.schedule.horizons.get(leader, 1))
        seeds = len(context.schedule.seeds)
        # What is fitted in one go is made already, and its first final judges it.
        if context.plans[leader].fitted_at_once and context.maker.facts.race_rows == context.schedule.final_rows:
            return (seeds - 1) / max(1, context.settings.num_workers) * each <= LEADER_SHARE * left
        if seeds == 1:  # it goes on from the last rung
            return (1 - RUNGS[-1]) * each <= LONE_LEADER_SHARE * left
        return seeds / max(1, context.settings.num_workers) * each <= LEADER_SHARE * left

    return [leader] if decided(context, "leader first", decide) else []


def cheap_finalists(
    context: RunContext[Any], results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Estimate]
) -> list[str]:
    """Return the plans that are cheap: simple baselines, those whose trainings are next to nothing each, and as many others, the
    cheapest first, as are a small part of the time together.

    Networks are none of them, since their steps could always be more.

    Args:
        context: The run.
        results: ``{plan: its last rung}`` of plans that ended one well.
        costs: What they cost, as measured.

    Returns:
        With fixed steps, when nothing measured may decide, those that are fitted in one go.
    """
    own = {name: own_horizon(context.plans[name]) for name in results}
    left = seconds_left(context)
    if left is None:
        return [name for name, steps in own.items() if steps == 1]
    trainings = 2 * (context.maker.facts.folds or len(context.schedule.seeds)) / max(1, context.settings.num_workers)

    def decide() -> list[str]:
        found, spent = [], 0.0
        needed = {
            name: trainings * _seconds(results[name], costs[name], steps)
            for name, steps in own.items()
            if steps is not None and name in costs
        }
        for name, seconds in sorted(needed.items(), key=lambda item: item[1]):
            spent += seconds
            # Without a baseline nobody learns whether anything was learned, and what one is taken to cost is a worker's start.
            if context.plans[name].group == "baseline" or seconds <= CHEAP_SHARE * left or spent <= CHEAP_SHARE_TOGETHER * left:
                found.append(name)
        return found

    return list(decided(context, "cheap finalists", decide))


def _seconds(result: Mapping[str, Any], cost: Estimate, steps: int) -> float:
    """Return the seconds of a training to its end: as measured if this one ended by itself before the step it was to reach."""
    wall = float(result.get("ledger", {}).get("wall_seconds", 0.0))
    ended = int(result.get("steps", 0)) < RUNGS[0] * int(result.get("horizon", 0))
    return wall + cost.eval_seconds if ended and wall > 0 else cost.seconds(steps)

"""Plans that go into the finals whatever their rank, because leaving them out would save next to nothing.

Closed forms, forests and trees on small tables are trained in a fraction of the time of a network. They may help an average, and they
are what a user would compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.horizons import own_horizon
from graftwork.workflows.runs.plan_costs import Estimate

__all__ = ["CHEAP_SHARE", "cheap_finalists"]

CHEAP_SHARE = 0.03
"""Share of the time left that all trainings of such a plan may take, those for the model that is handed over included."""


def cheap_finalists(context: RunContext[Any], names: Sequence[str], costs: Mapping[str, Estimate]) -> list[str]:
    """Return the plans among ``names`` that are cheap.

    Args:
        context: The run.
        names: Plans that ended a rung well.
        costs: What they cost, as measured.

    Returns:
        With fixed steps, when nothing measured may decide, those that are fitted in one go.
    """
    plans = [context.plans[name] for name in names]
    left = seconds_left(context)
    if left is None:
        return [plan.name for plan in plans if own_horizon(plan) == 1]
    trainings = 2 * (context.maker.facts.folds or len(context.schedule.seeds)) / max(1, context.settings.num_workers)

    def decide() -> list[str]:
        own = {plan.name: own_horizon(plan) for plan in plans if plan.name in costs}
        return [
            name
            for name, steps in own.items()
            if steps is not None and trainings * costs[name].seconds(steps) <= CHEAP_SHARE * left
        ]

    return list(decided(context, "cheap finalists", decide))

"""How many models of all rows are made once the verdict stands, and how long each trains: what time is left makes the model better.

Several models are averaged where one was planned. Where the plan was still improving at its last step, they train longer than in the
race: they learn from more rows, too, and stop on rows that they leave out, so that a longer training is kept only as far as it helps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from graftwork.workflows.fit.attempts import plan_seconds, whole_seconds
from graftwork.workflows.fit.large_suites import see_a_part
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import DEADLINE_SHARE, MEMBERS, decided, is_decided, seconds_left
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["BAG", "TENTHS", "WholeModels", "models_of", "seconds_for_all_rows", "whole_models", "whole_parts"]

Weights = Mapping[str, Mapping[str, float]]
Finals = Mapping[str, Mapping[int, TrainJob]]

BAG = 5
"""Most models of each plan that are trained where one was planned, if the time that is left suffices."""
TENTHS = 10
"""Parts of the rows of which fewer models leave out one each: as many rows as a single model leaves out, so that each is as good."""
GRACE = 0.08
"""Share of the time limit by which models on all rows may end later than trainings of the race, which stop a little before it."""
LONGEST = 2.5
"""By how much a training of all rows is longer than those of the race at most."""
LEAST_LONGER = 1.25
"""By how much trainings of an improving plan become longer before another model of it is made."""
_WORTH = 1.05
"""Below this a longer training is none."""
_SLOWER = 1.25
"""How many times slower than expected a longer training may be and still end in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeModels:
    """What is trained on all rows."""

    members: int = 0
    """Models of each plan; 0: none, those of the race are handed over."""
    parts: int = 0
    """Parts of the rows of which each model leaves out another one; 1: a single model leaves out a tenth."""
    longer: float = 1.0
    """Steps of plans that were still improving, as a multiple of those in the race."""


def whole_parts(context: RunContext[FitSettings]) -> int:
    """Return how many models of a plan are planned that see all rows between them; 0 for those of the race."""
    settings, folds = context.settings, context.maker.facts.folds
    if not settings.refit:
        return 0
    return 1 if settings.single or not folds else folds


def models_of(context: RunContext[FitSettings], plan: str, members: int) -> int:
    """Return how many models of a plan are made: one where it is fitted in one go, which needs no rows to stop on and so learns from
    all of them."""
    return 1 if context.plans[plan].fitted_at_once else members


def seconds_for_all_rows(context: RunContext[FitSettings]) -> float | None:
    """Return the seconds that models on all rows may take: what is left, and a little beyond the limit, since they are the better
    models; None without a limit."""
    return seconds_left(context, DEADLINE_SHARE + GRACE)


def whole_models(
    context: RunContext[FitSettings], weights: Weights, finals: Finals, improving: Collection[str] = ()
) -> WholeModels:
    """Return what is trained on all rows: as planned, fewer if the time does not suffice, more and longer if it does.

    Args:
        context: The run.
        weights: ``{plan: {task: weight}}`` of what is handed over.
        finals: Finished finals of every plan.
        improving: Plans that longer trainings would probably make better.

    Raises:
        ValueError: If the run's state holds numbers that were never decided.
    """
    planned = whole_parts(context)
    # A first model was made because there was no time for more.
    if not planned or any(name not in context.schedule.horizons for name in weights):
        return WholeModels()
    # The end of the time is long past: whatever begins now is cut.
    if seconds_for_all_rows(context) == 0.0 and not is_decided(context, MEMBERS):
        return WholeModels()
    # Of large suites a model of all rows is worth more than several of them.
    if see_a_part(weights, finals):
        decided(context, MEMBERS, lambda: 1)
        return WholeModels(members=1, parts=1)
    time = _Time(context, weights, finals, improving)
    members = decided(context, MEMBERS, lambda: time.members(planned))
    if not 1 <= members <= max(planned, BAG):
        raise ValueError(f"{members} models on all rows were decided, of {planned}")  # what is stored was changed
    longer = decided(context, "longer on all rows", lambda: time.longer(members))
    if not 1.0 <= longer <= LONGEST:
        raise ValueError(f"trainings on all rows {longer} times as long were decided")
    parts = 1 if members == 1 else planned if planned > 1 else BAG if members == BAG else TENTHS
    return WholeModels(members=int(members), parts=parts, longer=float(longer))


class _Time:
    """What is left, and what models of all rows take."""

    def __init__(self, context: RunContext[FitSettings], weights: Weights, finals: Finals, improving: Collection[str]) -> None:
        self.context, self.weights = context, weights
        self.improving = {name for name in weights if name in improving and not context.plans[name].fitted_at_once}
        chosen = {name: finals[name] for name in weights}
        # One of several parts leaves out as many rows as trainings of the race did.
        self.each = (
            whole_seconds(context, chosen)
            if whole_parts(context) == 1
            else {name: plan_seconds(context, jobs) for name, jobs in chosen.items()}
        )
        self.left = seconds_for_all_rows(context)
        self.grace = GRACE * (context.settings.time_limit or 0.0)

    def seconds(self, members: int, longer: float = 1.0) -> float:
        """Return the seconds of so many models of each plan, so much longer where a plan improves."""
        each = {name: one * (longer if name in self.improving else 1.0) for name, one in self.each.items()}
        total = sum(models_of(self.context, name, members) * one for name, one in each.items())
        return max(*each.values(), total / max(1, self.context.settings.num_workers))

    def members(self, planned: int) -> int:
        """Return how many models of each plan are made."""
        if self.left is None:
            return planned
        if planned > 1:
            return next((number for number in range(planned, 1, -1) if self.seconds(number) <= self.left), 1)
        if not _may_bag(self.context, self.weights):
            return 1
        # Without the grace, which is for the one model that is needed.
        least = LEAST_LONGER if self.improving else 1.0
        return next((number for number in range(BAG, 1, -1) if self.seconds(number, least) <= self.left - self.grace), 1)

    def longer(self, members: int) -> float:
        """Return by how much the trainings of improving plans are longer than those of the race."""
        if self.left is None or not self.improving:
            return 1.0
        time = min(self.left - self.grace, self.left / _SLOWER)
        hundredths = range(round(100 * LONGEST), round(100 * _WORTH) - 1, -1)
        return next((one / 100 for one in hundredths if self.seconds(members, one / 100) <= time), 1.0)


def _may_bag(context: RunContext[FitSettings], weights: Weights) -> bool:
    """Return whether an average of several models may take the place of the one that was planned: it is several times as large and
    as slow, which the user may not want, and helps plans alone whose models differ by the rows on which they stop."""
    settings = context.settings
    limits = (settings.max_params, settings.max_latency, settings.max_memory)
    is_wanted = settings.prefer == "score" and not settings.single and all(limit is None for limit in limits)
    return is_wanted and not all(context.plans[name].fitted_at_once for name in weights)

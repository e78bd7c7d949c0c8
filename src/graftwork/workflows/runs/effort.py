"""How thorough a race is apart from the steps of its trainings, and in which order that gives way to a short time limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "FINALISTS",
    "LEAST_PART",
    "Effort",
    "RaceBudget",
    "efforts",
    "full_effort",
    "least_efforts",
    "shortened",
    "shortened_to",
]

FINALISTS = 3
"""Best plans of the rungs that are trained to the end, besides those that answer a question."""
LEAST_PART = 0.6
"""Share of the rounds of its training in the race that boosted trees on all rows of a large suite need to be handed over."""
FEW_SEEDS = 3
"""Below so many seeds nothing may be asserted, so they are given up last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceBudget:
    """What a race may use."""

    seeds: tuple[int, ...]
    """Seeds of the finals; with folds, the numbers of the trainings."""
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
    one_plan: bool = False
    """Whether one plan is handed over; otherwise it may be an average of several."""
    finalists: int = FINALISTS
    whole_controls: bool = False
    """Whether a control needs all seeds: with folds, some of the rows could be compared with nothing."""
    scale: float = 1.0
    """How many times more training rows there are than rungs see."""
    refit_scale: float = 1.0
    """How many times more training rows models of all rows see than finals."""
    race_rows: int = 0
    """Training rows that rungs see; 0: all."""
    scored: float = 0.0
    """Passes over the rungs' validation rows that judging a whole training takes beside those of a rung: large suites have more
    validation and test rows."""
    final_rows: int = 0
    """Most training rows that finals see; 0: all."""
    whole_seconds: float = 0.0
    """Seconds that are kept for models of all rows where finals see a part of them."""
    rungs_done: int = 0
    """Rungs that are behind."""
    finals_next: bool = False
    """Whether the finals follow at once, whatever rungs there would be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Numbers of trainings."""

    seeds: int
    control_seeds: int
    control_tasks: int
    refits: int
    finalists: int


def full_effort(budget: RaceBudget) -> Effort:
    """Return what is planned if time does not matter."""
    seeds = len(budget.seeds)
    return Effort(
        seeds=seeds,
        control_seeds=seeds,
        control_tasks=budget.control_tasks,
        refits=budget.refits,
        finalists=budget.finalists,
    )


def efforts(budget: RaceBudget) -> Iterator[Effort]:
    """Yield efforts from the full one on, each smaller than the one before: first controls, then models that are averaged, then
    finalists and seeds, down to three seeds and one model that sees all rows."""
    effort = full_effort(budget)
    yield effort
    changes: list[dict[str, int]] = [] if budget.whole_controls else [{"control_seeds": 1}]
    changes += [{"control_tasks": 3}, {"refits": 1}, {"control_tasks": 1}, {"finalists": 2}, {"seeds": FEW_SEEDS}]
    changes += [{"control_seeds": 0}, {"finalists": 1}]
    for change in changes:
        smaller = _smaller(effort, change, budget)
        if smaller != effort:
            effort = smaller
            yield effort


def least_efforts(budget: RaceBudget) -> Iterator[Effort]:
    """Yield the efforts below those on which something may be asserted: two seeds, one seed, at last no model on all rows."""
    least = {"control_seeds": 0, "control_tasks": 0, "finalists": 1}
    for change in ({"seeds": 2, "refits": 1}, {"seeds": 1, "refits": 1}, {"seeds": 1, "refits": 0}):
        yield _smaller(full_effort(budget), {**least, **change}, budget)


def _smaller(effort: Effort, change: Mapping[str, int], budget: RaceBudget) -> Effort:
    found = replace(effort, **{name: min(getattr(effort, name), value) for name, value in change.items()})
    if budget.whole_controls and found.control_seeds:
        return replace(found, control_seeds=found.seeds)
    return replace(found, control_seeds=min(found.control_seeds, found.seeds))


def shortened_to(cut: Mapping[str, Any], given: int) -> dict[str, Any]:
    """Return an item of :func:`shortened` with the number that was given in the end, and the reason in words."""
    reason = f"the time limit allows {given} of {cut['planned']} {cut['name']}"
    return {**cut, "given": given, "reason": reason}


_WORDS = {
    "seeds": "trainings of every finalist",
    "control_seeds": "trainings of every control with shuffled companions",
    "control_tasks": "tasks with a control with shuffled companions",
    "refits": "models of the chosen plan that see all rows",
    "finalists": "finalists besides those that answer a question",
}


def shortened(planned: Effort, given: Effort) -> Sequence[dict[str, Any]]:
    """Return what was given up for lack of time, as ``not_tested`` of ``result.json`` lists it.

    Example:
        >>> one = Effort(seeds=3, control_seeds=3, control_tasks=2, refits=1, finalists=3)
        >>> [(item["what"], item["planned"], item["given"]) for item in shortened(one, replace(one, control_seeds=0))]
        [('control_seeds', 3, 0)]
    """
    before, after = dataclasses.asdict(planned), dataclasses.asdict(given)
    # Where no control was planned, none was given up; where none is left, that says it all.
    silent = {"control_seeds", "control_tasks"} if not planned.control_tasks else set()
    silent |= {"control_tasks"} if not given.control_seeds else set()
    return [
        shortened_to({"what": name, "name": _WORDS[name], "planned": before[name]}, after[name])
        for name in before
        if after[name] < before[name] and name not in silent
    ]

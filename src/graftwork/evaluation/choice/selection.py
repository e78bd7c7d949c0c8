"""Which plan to ship, decided on validation scores alone: test rows measure, they never select.

Rule: the plan with the best expected score among those that meet the limits, be it a single plan, an average of several, or a mixed
plan, which takes one of them for each task. An average of plans takes its place unless the best
one's lead over it is beyond noise: averages vary less from sample to sample, and the best of many plans owes a part of its score to
luck. A cheaper plan takes the place of the best one only if the user prefers cost, only if it is cheaper in a cost that was
measured, and only if it is not worse: the lower bound of its change lies above minus the tolerance, for the mean over tasks and for
each task. That nobody could tell two plans apart is no reason to take the cheaper one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from graftwork.core.records import Ledger
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.validation_table import ValidationTable

__all__ = [
    "CLEARLY_CHEAPER",
    "TOLERANCE",
    "Cheaper",
    "Choice",
    "Prefer",
    "choose_plan",
    "cost_name",
    "limit_problems",
    "plan_cost",
]

TOLERANCE = 1.0
"""Percent of the best score that a cheaper plan may be worse by."""
CLEARLY_CHEAPER = 0.95
"""A plan is cheaper if it costs less than this share of the other."""
FURTHEST_BEHIND = 5.0
"""Percent of the best score; an average that is further behind is not taken, whatever is known of the noise."""
SURE_LEAD = 0.975
"""Probability of a true lead from which the best plan stays in front of an average: it is the luckiest of many, so that a lead
which would be sure for two plans is not sure for it."""
_SAME = 1e-9
"""Percent; expected scores that differ by less are equal."""

Prefer = Literal["score", "cost"]

_LIMITS: dict[str, tuple[tuple[str, ...], str]] = {
    "max_params": (("parameters_stored", "parameters_total"), "parameters"),
    "max_latency": (("latency_ms_batch1",), "ms latency"),
    "max_memory": (("peak_rss_bytes",), "bytes of memory"),
}
_COSTS = ("parameters_stored", "latency_ms_batch1", "flops_per_sample", "parameters_total", "wall_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cheaper:
    """A cheaper plan that is not worse than the best one within the tolerance."""

    plan: str
    than: str
    """The best plan."""
    change: float
    """Change of the validation score from the best plan to this one, percent of the best score."""
    lower: float
    """What the true change exceeds with 95 % probability."""
    lowest: float
    """The lowest of these bounds over the single tasks."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen plan and why."""

    plan: str
    best: str
    """Best expected score on validation; another than ``plan`` only if that is an average or cheaper, and not clearly worse."""
    per_task: dict[str, str]
    """For each task the plan to take if tasks may take different ones: another than ``plan`` only where it leads beyond noise."""
    cheaper: Cheaper | None = None
    """The cheapest plan that is not worse than ``best``, whether it was taken or not; None if there is none."""
    warnings: list[str] = field(default_factory=list)


def plan_cost(ledger: Ledger | None, name: str) -> float:
    """Return one cost of a plan; NaN if it was not measured."""
    # Ledgers say 0 where nothing was measured.
    value = float(getattr(ledger, name)) if ledger is not None else 0.0
    return value if value > 0 else float("nan")


def cost_name(plans: Sequence[str], ledgers: Mapping[str, Ledger], limits: Mapping[str, Any]) -> str:
    """Return the ledger entry that "cheaper" means: what the user limits, or the first that was measured for every plan."""
    limited = [_LIMITS[key][0][0] for key in _LIMITS if limits.get(key) is not None]
    order = [*limited, *_COSTS]
    measured = {name: sum(not np.isnan(plan_cost(ledgers.get(plan), name)) for plan in plans) for name in order}
    # max keeps the first of equals: the user's limits come first, then the usual order of costs.
    return max(order, key=lambda name: measured[name])


def limit_problems(ledger: Ledger | None, limits: Mapping[str, Any]) -> list[str]:
    """Return which limits a plan breaks, in words; a cost that was not measured breaks none.

    Args:
        ledger: Costs of the plan.
        limits: ``max_params`` (stored numbers), ``max_latency`` (ms at batch size 1), ``max_memory`` (bytes of peak RSS); None
            is no limit.
    """
    problems = []
    for key, (names, unit) in _LIMITS.items():
        limit = limits.get(key)
        cost = next((value for value in (plan_cost(ledger, name) for name in names) if not np.isnan(value)), float("nan"))
        if limit is not None and cost > float(limit):
            problems.append(f"{cost:,.4g} {unit} (limit {float(limit):,.4g})")
    return problems


def choose_plan(
    table: ValidationTable,
    finals: Mapping[str, Sequence[FinalRun]],
    ledgers: Mapping[str, Ledger],
    limits: Mapping[str, Any],
    *,
    averages: Collection[str] = (),
    mixed: Collection[str] = (),
    tolerance: float = TOLERANCE,
    prefer: Prefer = "score",
) -> Choice:
    """Choose the plan, for all tasks together and for each.

    Args:
        table: Validation scores.
        finals: Runs by plan, at least one plan.
        ledgers: Costs by plan.
        limits: See :func:`limit_problems`.
        averages: Names of the plans that are averages of others.
        mixed: Names of the plans that take one of the others for each task. They vary as those do, so nothing is in their favour, and
            for one task they are no plan of their own.
        tolerance: Percent of the best score that a cheaper plan may be worse by, at least 0.
        prefer: ``score`` keeps the best plan, ``cost`` takes the cheapest that is not worse within the tolerance.
    """
    warnings = []
    complete = [name for name in finals if not np.isnan(table.expected(name))]
    for name in finals:
        if name not in complete:
            warnings.append(f"`{name}` has no complete validation scores and could not be chosen.")
    broken = {name: limit_problems(ledgers.get(name), limits) for name in finals}
    candidates = [name for name in complete if not broken[name]]
    cost = cost_name(list(finals), ledgers, limits)
    costs = {name: plan_cost(ledgers.get(name), cost) for name in finals}
    if not candidates:
        # Somebody must be chosen; the warning says that it breaks a limit.
        candidates = complete or list(finals)
        if any(broken.values()):
            listed = "; ".join(f"`{name}`: {', '.join(problems)}" for name, problems in broken.items() if problems)
            warnings.append(f"No finalist meets the limits ({listed}). Relax a limit, or take the cheapest.")
            # min over NaN would return whatever comes first.
            known = [name for name in candidates if not np.isnan(costs[name])] or candidates
            candidates = [min(known, key=lambda name: costs[name])]
    best = _best(table, candidates, costs)
    found = [one for name in candidates if (one := _cheaper(table, name, best, costs, tolerance)) is not None]
    cheaper = min(found, key=lambda one: costs[one.plan]) if found else None
    if prefer == "cost":
        plan = cheaper.plan if cheaper is not None else best
    else:
        plan = next((name for name in candidates if name in averages and _is_as_good(table, name, best)), best)
    per_task, own = {}, [name for name in candidates if name not in mixed]
    for task in table.tasks:
        leader = table.best(own, task.name) or plan
        # Another plan for one task is another model to serve, so only a sure lead counts.
        per_task[task.name] = leader if table.is_beyond_noise(leader, plan, task.name) else plan
    return Choice(plan=plan, best=best, per_task=per_task, cheaper=cheaper, warnings=warnings)


def _is_as_good(table: ValidationTable, average: str, best: str) -> bool:
    """Return whether chance explains the lead of the best plan over an average."""
    # Of exact equals the cheapest stays.
    return _SAME < table.behind(average, best) <= FURTHEST_BEHIND and not table.is_beyond_noise(
        best, average, probability=SURE_LEAD
    )


def _best(table: ValidationTable, candidates: Sequence[str], costs: Mapping[str, float]) -> str:
    """Return the candidate with the best expected score; of exact equals the cheapest."""
    best = table.best(candidates)
    if best is None:
        return candidates[0]
    equals = [name for name in candidates if abs(table.behind(name, best)) <= _SAME]
    return min(equals, key=lambda name: costs[name] if not np.isnan(costs[name]) else float("inf"))


def _cheaper(table: ValidationTable, plan: str, best: str, costs: Mapping[str, float], tolerance: float) -> Cheaper | None:
    """Return what is known of a cheaper plan; None if it is not cheaper, or may be worse than the tolerance allows."""
    # A comparison with an unknown cost is False: what nobody measured is not cheaper.
    if not costs[plan] < CLEARLY_CHEAPER * costs[best]:
        return None
    lower = table.lower_bound(plan, best)
    lowest = [table.lower_bound(plan, best, task.name) for task in table.tasks if table.counts(task.name)]
    # Every task must pass, so that no correction for their number is needed. A bound that is unknown is not above anything.
    if not all(bound > -tolerance for bound in (lower, *lowest)):
        return None
    change = float(np.mean(list(table.differences(plan, best).values())))
    return Cheaper(plan=plan, than=best, change=change, lower=lower, lowest=min(lowest))

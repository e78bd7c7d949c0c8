"""Which plan to take, decided on validation scores alone: test rows measure, they never select.

Rule: among the plans that meet the limits, the best mean relative change on validation; and in its place the cheapest plan whose
distance to it is within noise. "Within noise" is the corrected resampled t-test over seeds, which exchange validation and
training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graftwork.core.records import Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.delta_m import relative_changes
from graftwork.evaluation.metrics import default_metric
from graftwork.evaluation.paired import corrected_resampled_ttest
from graftwork.interfaces.metric import Floats

__all__ = [
    "CLEARLY_CHEAPER",
    "MINIMAL_EFFECT",
    "SURE_ENOUGH",
    "Choice",
    "ValidationTable",
    "choose_plan",
    "cost_name",
    "limit_problems",
    "plan_cost",
]

MINIMAL_EFFECT = 0.5
"""Percent; smaller changes do not matter to anybody and count as none."""
SURE_ENOUGH = 0.9
"""Probability from which a lead on validation is worth a higher cost."""
CLEARLY_CHEAPER = 0.95
"""A plan is cheaper if it costs less than this share of the other."""

_LIMITS: dict[str, tuple[tuple[str, ...], str]] = {
    "max_params": (("parameters_stored", "parameters_total"), "parameters"),
    "max_latency": (("latency_ms_batch1",), "ms latency"),
    "max_memory": (("peak_rss_bytes",), "bytes of memory"),
}
_COSTS = ("parameters_stored", "latency_ms_batch1", "flops_per_sample", "parameters_total", "wall_seconds")


class ValidationTable:
    """Validation scores of all finalists as percent of the reference's mean, ``[seeds, tasks]`` a plan.

    Args:
        suite: The suite.
        finals: Runs by plan.
        plans: Plan records; the reference is the best plan of the family ``separate``.
    """

    def __init__(self, suite: Suite, finals: Mapping[str, Sequence[FinalRun]], plans: Mapping[str, Plan]) -> None:
        self.tasks = suite.tasks
        self.num_train, self.num_val = len(suite.splits["train"]), len(suite.splits["val"])
        self._seeds = {name: [run.seed for run in runs] for name, runs in finals.items()}
        self._raw = {
            name: np.array(
                [[run.validation.get(task.name, {}).get(default_metric(task), np.nan) for task in self.tasks] for run in runs],
                dtype=np.float64,
            ).reshape(len(runs), len(self.tasks))
            for name, runs in finals.items()
        }
        separate = [
            name
            for name in finals
            # A plan with a hole cannot be 100 %: its mean is NaN, and everything relative to it.
            if plans[name].role == "reference" and self._raw[name].size and np.isfinite(self._raw[name]).all()
        ]
        # Any plan can be the 100 % of an order of plans; deltas of the report are against the reference, or there are none.
        self._base = next(iter(separate or finals))
        # `best` compares relative to a base, so there must be one before the reference is known.
        self.reference: str | None = self.best(separate)
        self._base = self.reference or self._base

    def relative(self, plan: str) -> Floats:
        """Return the plan's changes against the reference's mean in percent, ``[S, T]``."""
        base = self._raw[self._base].mean(axis=0)
        columns = [relative_changes(task, self._raw[plan][:, index], base[index]) for index, task in enumerate(self.tasks)]
        return np.stack(columns, axis=1)

    def mean(self, plan: str, task: str | None = None) -> float:
        """Return the plan's mean change over seeds and tasks (or for one task); NaN if a score is missing."""
        table = self.relative(plan)
        # A plain mean: one missing score makes it NaN, and the plan cannot be chosen.
        return float((table if task is None else table[:, self._column(task)]).mean()) if table.size else float("nan")

    def best(self, candidates: Sequence[str], task: str | None = None) -> str | None:
        """Return the candidate with the best mean (first of equals); None if no candidate has all scores."""
        means = {name: self.mean(name, task) for name in candidates}
        known = [name for name in candidates if not np.isnan(means[name])]
        # max keeps the first of equals, so the order of plans decides and not chance.
        return max(known, key=lambda name: means[name]) if known else None

    def is_beyond_noise(self, better: str, other: str, task: str | None = None) -> bool:
        """Return whether the lead of ``better`` over ``other`` is large enough to matter and too sure to be noise."""
        left, right = (self._by_seed(name, task) for name in (better, other))
        lead = self.mean(better, task) - self.mean(other, task)
        # NaN is no lead.
        if not lead >= MINIMAL_EFFECT:
            return False
        # Paired by seed: both plans saw the same split.
        differences = [left[seed] - right[seed] for seed in left if seed in right]
        test = corrected_resampled_ttest(differences, self.num_train, self.num_val)
        # One seed, or seeds that agree exactly, say nothing about noise: then only the size of the lead counts.
        return bool(np.isnan(test.p_value)) or test.probability_positive >= SURE_ENOUGH

    def _by_seed(self, plan: str, task: str | None) -> dict[int, float]:
        table = self.relative(plan)
        values = table.mean(axis=1) if task is None else table[:, self._column(task)]
        return dict(zip(self._seeds[plan], map(float, values), strict=True))

    def _column(self, task: str) -> int:
        return [item.name for item in self.tasks].index(task)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen plan and why."""

    plan: str
    best: str
    """Best mean on validation; another than ``plan`` if that is cheaper and within noise."""
    per_task: dict[str, str]
    """For each task the plan to take if tasks may take different ones: another than ``plan`` only where it leads beyond noise."""
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
    table: ValidationTable, finals: Mapping[str, Sequence[FinalRun]], ledgers: Mapping[str, Ledger], limits: Mapping[str, Any]
) -> Choice:
    """Choose the plan, for all tasks together and for each.

    Args:
        table: Validation scores.
        finals: Runs by plan, at least one plan.
        ledgers: Costs by plan.
        limits: See :func:`limit_problems`.
    """
    warnings = []
    complete = [name for name in finals if not np.isnan(table.mean(name))]
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
    best = table.best(candidates) or candidates[0]
    # A comparison with an unknown cost is False: what nobody measured is not cheaper.
    cheaper = [
        name for name in candidates if costs[name] < CLEARLY_CHEAPER * costs[best] and not table.is_beyond_noise(best, name)
    ]
    plan = min(cheaper, key=lambda name: costs[name]) if cheaper else best
    per_task = {}
    for task in table.tasks:
        leader = table.best(candidates, task.name) or plan
        # Another plan for one task is another model to serve, so only a sure lead counts.
        per_task[task.name] = leader if table.is_beyond_noise(leader, plan, task.name) else plan
    return Choice(plan=plan, best=best, per_task=per_task, warnings=warnings)

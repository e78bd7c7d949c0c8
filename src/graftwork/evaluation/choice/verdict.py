"""The verdict: from the finalists' predictions to what to use and why. A pure function, no files and no training.

Validation scores select (``verdict_choice``), test rows only measure (``verdict_scores``, ``verdict_compare``), and sentences
say no more than the comparisons carry (``verdict_text``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.records import Interval, Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.changes import Change
from graftwork.evaluation.choice import sentences as text
from graftwork.evaluation.choice.comparison import (
    compare_cells,
    compare_means,
    compare_tasks,
    control_rows,
    label_change,
    seed_p_value,
    source_rows,
    weak_evidence,
)
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.evaluation.choice.selection import (
    CLEARLY_CHEAPER,
    SURE_ENOUGH,
    Choice,
    ValidationTable,
    choose_plan,
    cost_name,
    plan_cost,
)
from graftwork.evaluation.pareto import pareto_front

__all__ = ["FinalRun", "build_verdict", "pareto_rows"]

_NO_CHANGE = {"value": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}


def build_verdict(
    suite: Suite,
    finals: Mapping[str, Sequence[FinalRun]],
    *,
    controls: Mapping[str, Sequence[FinalRun]],
    affinity: Mapping[str, Any] | None,
    ledgers: Mapping[str, Ledger],
    plans: Mapping[str, Plan],
    limits: Mapping[str, Any] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    over_plans: bool = False,
) -> dict[str, Any]:
    """Judge the finalists.

    Args:
        suite: The suite; its ``test`` rows (and ``transfer`` rows) measure.
        finals: ``{plan: runs}``, one run a seed.
        controls: ``{task: runs}`` of a shared plan (named by the runs) whose other tasks' training targets were shuffled.
        affinity: From :func:`graftwork.evaluation.affinity.summarise_affinity`, or None.
        ledgers: Costs by plan.
        plans: Records of all plans in ``finals``.
        limits: ``max_params`` (stored numbers), ``max_latency`` (ms), ``max_memory`` (bytes); missing or None is no limit.
        num_resamples: Bootstrap resamples of the test rows.
        seed: Seed of the resamples.
        over_plans: Adjust p-values for the number of plans as well as of tasks, for readers who compare plans with one another;
            and add ``overall``, the comparison of every plan's delta-m, adjusted for the number of plans.

    Returns:
        JSON: ``plans`` (``test``, ``per_seed``, ``delta_m``, ``relative``, ``transfer`` for each), ``comparisons``,
            ``source_effect``,
        ``controls``, ``pareto``, ``verdict``. Undefined numbers are None. The verdict also has ``per_task_best`` (the plan to
        take for each task, by validation), ``best_on_validation`` and ``cost_name``.

    Raises:
        DataError: If there is no finished run, a plan has no record, or predictions do not fit the rows.
    """
    # A plan of which every seed failed is no finalist.
    finals = {name: list(runs) for name, runs in finals.items() if runs}
    if not finals:
        raise DataError("There is no finished run to judge. See the messages of the race for why the plans failed.")
    unknown = [name for name in finals if name not in plans]
    if unknown:
        raise DataError(f"There is no plan record for {', '.join(unknown)}; the plans are {', '.join(plans)}.")
    limits = limits or {}
    controls = {task: list(runs) for task, runs in controls.items() if runs}
    # Controls share the resamples of the plans, so that both can be compared in pairs.
    arms = {**finals, **{_control_arm(task): _only(task, runs) for task, runs in controls.items()}}
    bank = ScoreBank(suite, arms, num_resamples=num_resamples, seed=seed)
    table = ValidationTable(suite, finals, plans)
    choice = choose_plan(table, finals, ledgers, limits)
    judge = _Judge(suite, finals, plans, ledgers, limits, bank, table, choice)
    comparisons = judge.comparisons(over_plans=over_plans)
    control_pairs = {
        task: (runs[0].plan_name, judge.separate_for(runs[0].plan_name) or "", _control_arm(task))
        for task, runs in controls.items()
    }
    control_results = control_rows(bank, control_pairs)
    sources = source_rows(bank, table, plans, finals)
    result = {
        "plans": judge.plan_entries(_transfer_bank(suite, finals, num_resamples, seed)),
        "comparisons": comparisons,
        "source_effect": sources,
        "controls": control_results,
        "pareto": judge.pareto(),
        **({"overall": judge.overall()} if over_plans else {}),
        "verdict": judge.verdict(comparisons, control_results, affinity, text.source_sentence(sources)),
    }
    return _clean(result)


class _Judge:
    """The parts of one verdict, over the same evidence."""

    def __init__(
        self,
        suite: Suite,
        finals: Mapping[str, Sequence[FinalRun]],
        plans: Mapping[str, Plan],
        ledgers: Mapping[str, Ledger],
        limits: Mapping[str, Any],
        bank: ScoreBank,
        table: ValidationTable,
        choice: Choice,
    ) -> None:
        self.suite, self.finals, self.plans, self.bank, self.table, self.choice = suite, finals, plans, bank, table, choice
        self.reference = table.reference
        self.cost_name = cost_name(list(finals), ledgers, limits)
        self.costs = {name: plan_cost(ledgers.get(name), self.cost_name) for name in finals}

    def separate_for(self, plan: str) -> str | None:
        """Return the separate models to compare a shared plan with: of the same source if such ran."""
        separate = [name for name in self.finals if self.plans[name].role == "reference"]
        # With another source, its effect would be taken for that of sharing.
        same = [name for name in separate if plan in self.plans and self.plans[name].source == self.plans[plan].source]
        return self.table.best(same) or self.reference

    def _differs_by_sharing(self, plan: str) -> bool:
        """Whether separate models of the same source ran; with others, the source would be blamed on the sharing."""
        separate = self.separate_for(plan)
        return separate is not None and self.plans[separate].source == self.plans[plan].source

    def comparisons(self, *, over_plans: bool = False) -> list[dict[str, Any]]:
        """Compare every plan with the reference, task by task."""
        if self.reference is None:
            return []
        # Holm within each plan: a reader looks at one plan at a time. `over_plans` puts all cells into one family.
        families = [[(task, name, self.reference) for task in self.suite.task_names] for name in self._others()]
        if over_plans:
            families = [[cell for cells in families for cell in cells]]
        return [row for cells in families for row in compare_cells(self.bank, cells)]

    def overall(self) -> list[dict[str, Any]]:
        """Compare every plan with the reference by delta-m."""
        return compare_means(self.bank, self._others(), self.reference) if self.reference is not None else []

    def _others(self) -> list[str]:
        return [name for name in self.finals if name != self.reference]

    def plan_entries(self, transfer: ScoreBank | None) -> dict[str, Any]:
        """Return the test part of each plan's entry."""
        entries = {}
        for name in self.finals:
            mean, relative = None, {}
            if name == self.reference:
                # The reference against itself is 0 by definition.
                mean, relative = _NO_CHANGE, dict.fromkeys(self.suite.task_names, _NO_CHANGE)
            elif self.reference is not None:
                changes = self.bank.changes(name, self.reference)
                relative = {task: change.interval().to_json() for task, change in changes.items()}
                delta = self.bank.delta_m(name, self.reference)
                mean = delta.interval().to_json() if delta else None
            entries[name] = {
                "test": _intervals_json(self.bank, name),
                "per_seed": self.bank.per_seed(name),
                "delta_m": mean,
                "relative": relative,
                "transfer": (_intervals_json(transfer, name) or None) if transfer else None,
            }
        return entries

    def pareto(self) -> list[dict[str, Any]]:
        """Return cost and test score of each plan and who is on the front; the score is delta-m, 0 for the reference itself."""
        # Without a reference some other plan has to be the origin.
        base = self.reference or next(iter(self.finals))
        deltas = {name: self.bank.delta_m(name, base) for name in self.finals}
        scores = {name: 0.0 if name == base else (delta.value if delta else float("nan")) for name, delta in deltas.items()}
        return pareto_rows(self.costs, scores, self.cost_name)

    def verdict(
        self,
        comparisons: Sequence[Mapping[str, Any]],
        control_results: Sequence[Mapping[str, Any]],
        affinity: Mapping[str, Any] | None,
        source: str | None,
    ) -> dict[str, Any]:
        """Choose words for the choice."""
        choice, warnings = self.choice.plan, list(self.choice.warnings)
        strength, first = self._headline(warnings)
        swapped = {task: (plan, choice) for task, plan in self.choice.per_task.items() if plan != choice}
        per_task = text.per_task_sentence(compare_tasks(self.bank, swapped), choice)
        sentences = [first, per_task, self._together(comparisons, affinity, advise=per_task is None)]
        sentences.append(text.control_sentence(control_results))
        self._warn_of_weak_evidence(warnings)
        return {
            "choice": choice,
            "reference": self.reference,
            "strength": strength,
            "sentences": [sentence for sentence in sentences if sentence],
            "source_sentence": source,
            "warnings": warnings,
            "per_task_best": dict(self.choice.per_task),
            "best_on_validation": self.choice.best,
            "cost_name": self.cost_name,
        }

    def _headline(self, warnings: list[str]) -> tuple[str, str]:
        choice, reference = self.choice.plan, self.reference
        others = [name for name in self.finals if name != choice]
        rival = None
        if choice == reference:
            # A rival that shares something, if there is one: separate models of another source answer another question.
            rival = self.table.best([name for name in others if self.plans[name].role != "reference"]) or self.table.best(others)
        change, label, interval = None, "no difference", None
        if reference is not None:
            change = self.bank.delta_m(rival or choice, reference) if choice != reference or rival else None
        if change is not None:
            interval, label = change.interval(), self._label_mean(change)
        if choice != reference and label in ("worse", "probably worse"):
            warnings.append("Validation and test rows disagree on the chosen plan: more data or seeds are needed to decide.")
        known = [cost for cost in self.costs.values() if not np.isnan(cost)]
        return text.headline(
            choice=choice,
            reference=reference,
            rival=rival,
            interval=interval,
            label=label,
            cost=text.ratio_phrase(self.costs[choice], self.costs[reference], self.cost_name) if reference else "",
            num_tasks=len(self.suite.tasks),
            # Against the reference the sentence already gives the gain.
            saves_from=self.choice.best if self.choice.best not in (choice, reference) else None,
            is_cheapest=bool(known) and self.costs[choice] * CLEARLY_CHEAPER <= min(known),
        )

    def _label_mean(self, change: Change) -> str:
        weak = any(weak_evidence(self.bank, task, change) for task in self.suite.task_names)
        # The one sentence that everybody reads needs more than a cell of a table does.
        return label_change(change, seed_p_value(self.suite, change), may_assert=not weak, probable=SURE_ENOUGH)

    def _together(
        self, comparisons: Sequence[Mapping[str, Any]], affinity: Mapping[str, Any] | None, *, advise: bool
    ) -> str | None:
        """Say what training together does: of the chosen plan if it does that, else of the best plan that does."""
        # Without separate models of the same source nothing can be said about sharing.
        joint = [name for name in self.finals if self.plans[name].role == "joint" and self._differs_by_sharing(name)]
        plan = self.choice.plan if self.choice.plan in joint else self.table.best(joint)
        if plan is None or len(self.suite.tasks) < 2:
            return None
        separate = self.separate_for(plan)
        if separate is None:
            return None
        if separate == self.reference:
            rows: Sequence[Mapping[str, Any]] = [row for row in comparisons if row["plan"] == plan]
        else:
            rows = compare_tasks(self.bank, dict.fromkeys(self.suite.task_names, (plan, separate)))
        hurt = [row["task"] for row in rows if row["label"] in ("worse", "probably worse")]
        # A choice that trains separately already needs no such advice.
        advise = advise and self.plans[self.choice.plan].role != "reference"
        return text.together_sentence(plan, rows, text.affinity_phrases(affinity, hurt), advise=advise)

    def _warn_of_weak_evidence(self, warnings: list[str]) -> None:
        if self.reference is None:
            warnings.append("No plan of separate models finished, so gains of learning together are not measured.")
            return
        reasons: dict[str, list[str]] = {}
        # Any pair shows how many rows and seeds there are; the chosen plan's, if it is not the reference.
        other = next((name for name in (self.choice.plan, *self.finals) if name != self.reference), None)
        for task in self.suite.task_names:
            change = self.bank.change(task, other, self.reference) if other else None
            reason = weak_evidence(self.bank, task, change) if change else ""
            if reason:
                reasons.setdefault(reason, []).append(text.quote(task))
        crossing = str(self.suite.raw.get("crossing", ""))
        for reason, tasks in reasons.items():
            few = f"Only {reason} for {text.join_words(tasks)}" if reason != crossing else reason[:1].upper() + reason[1:]
            warnings.append(f"{few}: these comparisons are tentative.")


def pareto_rows(costs: Mapping[str, float], scores: Mapping[str, float], cost: str) -> list[dict[str, Any]]:
    """Return ``pareto`` of ``result.json`` for one kind of cost.

    Args:
        costs: Cost of each plan; NaN if it was not measured.
        scores: Score of each plan, higher is better.
        cost: Name of the ledger entry.
    """
    front = pareto_front([[costs[name], scores[name]] for name in costs], maximize=[False, True])
    return [
        {"plan": name, "cost": costs[name], "cost_name": cost, "score": scores[name], "on_front": bool(on_front)}
        for name, on_front in zip(costs, front, strict=True)
    ]


def _control_arm(task: str) -> str:
    return f"control of {task}"


def _only(task: str, runs: Sequence[FinalRun]) -> list[FinalRun]:
    """Return control runs with the kept task's predictions only: those of shuffled tasks mean nothing."""
    kept = [run for run in runs if task in run.predictions]
    return [
        FinalRun(plan_name=run.plan_name, seed=run.seed, predictions={task: run.predictions[task]}, validation=run.validation)
        for run in kept
    ]


def _transfer_bank(suite: Suite, finals: Mapping[str, Sequence[FinalRun]], num_resamples: int, seed: int) -> ScoreBank | None:
    if not len(suite.splits.get("transfer", ())) or not any(run.transfer_predictions for runs in finals.values() for run in runs):
        return None
    return ScoreBank(suite, finals, split="transfer", num_resamples=num_resamples, seed=seed)


def _intervals_json(bank: ScoreBank, name: str) -> dict[str, dict[str, Any]]:
    return {
        task: {metric: interval.to_json() for metric, interval in metrics.items()}
        for task, metrics in bank.intervals(name).items()
    }


def _clean(value: Any) -> Any:
    """Return JSON without NaN and infinity: they become None."""
    if isinstance(value, Mapping):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, Interval):
        return _clean(value.to_json())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value

"""The parts of one verdict, over the same evidence: every comparison is made once, so that it has one word wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.records import Ledger, Plan
from graftwork.evaluation.choice import sentences as text
from graftwork.evaluation.choice.comparison import compare_cells, compare_means, compare_tasks, compare_with_baseline
from graftwork.evaluation.choice.evidence_sentences import evidence_sentences
from graftwork.evaluation.choice.scores import ScoreBank
from graftwork.evaluation.choice.selection import CLEARLY_CHEAPER, Choice, cost_name, plan_cost
from graftwork.evaluation.choice.ship_sentences import (
    Shipped,
    baseline_sentence,
    beats,
    cheaper_sentence,
    mixed_sentence,
    ship_sentence,
)
from graftwork.evaluation.choice.together import Pair, answers_of, is_baseline, plans_of_tasks
from graftwork.evaluation.choice.together_sentences import not_tested_sentence, together_sentence
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.pareto import pareto_front

__all__ = ["Judge", "pareto_rows"]

Row = dict[str, Any]
_NO_CHANGE = {"value": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}


class Judge:
    """Compares finalists and puts the verdict into words.

    Args:
        bank: Test scores of finalists and controls.
        table: Validation scores.
        plans: Records of the finalists.
        choice: From :func:`graftwork.evaluation.choice.selection.choose_plan`.
        ledgers: Costs by plan.
        limits: Limits of the user.
        tolerance: Percent of the best score that a cheaper plan may be worse by.
        over_plans: Whether p-values of single tasks are adjusted for the number of plans, too.
    """

    def __init__(
        self,
        *,
        bank: ScoreBank,
        table: ValidationTable,
        plans: Mapping[str, Plan],
        choice: Choice,
        ledgers: Mapping[str, Ledger],
        limits: Mapping[str, Any],
        tolerance: float,
        over_plans: bool,
    ) -> None:
        self._bank, self._table, self._plans, self._choice = bank, table, plans, choice
        self._tolerance = tolerance
        self.reference = table.reference
        self._cost_name = cost_name(list(plans), ledgers, limits)
        self._costs = {name: plan_cost(ledgers.get(name), self._cost_name) for name in plans}
        self._means: dict[tuple[str, str], Row | None] = {}
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self._compare_all(over_plans)

    def _compare_all(self, over_plans: bool) -> None:
        """Compare every plan with the reference, task by task."""
        reference = self.reference
        if reference is None:
            return
        # Holm within each plan: a reader looks at one plan at a time. `over_plans` puts all cells into one family.
        families = [[(task, name, reference) for task in self._tasks] for name in self._others()]
        if over_plans:
            families = [[cell for cells in families for cell in cells]]
        for name in self._others():
            self._rows[name, reference] = []
        for cells in families:
            for row in compare_cells(self._bank, cells):
                self._rows[row["plan"], reference].append(row)

    @property
    def _tasks(self) -> Sequence[str]:
        return self._bank.suite.task_names

    def _others(self) -> list[str]:
        return [name for name in self._plans if name != self.reference]

    def rows(self, plan: str, reference: str) -> list[Row]:
        """Return the comparisons of two plans task by task."""
        if (plan, reference) not in self._rows:
            self._rows[plan, reference] = compare_tasks(self._bank, dict.fromkeys(self._tasks, (plan, reference)))
        return self._rows[plan, reference]

    def mean(self, plan: str, reference: str) -> Row | None:
        """Return the comparison of two plans by delta-m; None if they share no task."""
        if (plan, reference) not in self._means:
            self._means[plan, reference] = next(iter(compare_means(self._bank, [plan], reference)), None)
        return self._means[plan, reference]

    def comparisons(self) -> list[Row]:
        """Return the comparisons of every plan with the reference, task by task."""
        return [row for name in self._others() if self.reference is not None for row in self._rows[name, self.reference]]

    def overall(self) -> list[Row]:
        """Compare every plan with the reference by delta-m, adjusted for the number of plans."""
        return compare_means(self._bank, self._others(), self.reference) if self.reference is not None else []

    def plan_entries(self, transfer: ScoreBank | None) -> dict[str, Any]:
        """Return the test part of each plan's entry."""
        entries = {}
        for name in self._plans:
            mean, relative = None, {}
            if name == self.reference:
                # The reference against itself is 0 by definition.
                mean, relative = _NO_CHANGE, dict.fromkeys(self._tasks, _NO_CHANGE)
            elif self.reference is not None:
                relative = {row["task"]: row["difference"] for row in self._rows[name, self.reference]}
                whole = self.mean(name, self.reference)
                mean = whole["difference"] if whole else None
            entries[name] = {
                "test": _intervals_json(self._bank, name),
                "per_seed": self._bank.per_seed(name),
                "delta_m": mean,
                "relative": relative,
                "transfer": (_intervals_json(transfer, name) or None) if transfer else None,
            }
        return entries

    def pareto(self) -> list[Row]:
        """Return cost and test score of each plan and who is on the front; the score is delta-m, 0 for the reference itself."""
        # Without a reference some other plan has to be the origin.
        base = self.reference or next(iter(self._plans))
        deltas = {name: self._bank.delta_m(name, base) for name in self._plans}
        scores = {name: 0.0 if name == base else (delta.value if delta else float("nan")) for name, delta in deltas.items()}
        return pareto_rows(self._costs, scores, self._cost_name)

    def verdict(
        self,
        pairs: Sequence[Pair],
        control_results: Sequence[Row],
        pooled: Mapping[str, Row | None],
        affinity: Mapping[str, Any],
        source: str | None,
    ) -> Row:
        """Choose words for both questions."""
        choice, warnings = self._choice.plan, list(self._choice.warnings)
        strength, shipped, ship = self._ship()
        unbeaten, baseline = self._baseline()
        if baseline is not None and not baseline["beaten"]:
            strength = "open"
        swapped = {task: (plan, choice) for task, plan in self._choice.per_task.items() if plan != choice}
        per_task = compare_tasks(self._bank, swapped)
        answers = [
            {**row, "unlearned": self._unlearned(row["plan"], row["reference"])}
            for row in answers_of(pairs, self.mean, self.rows, control_results, pooled)
        ]
        sentences = [
            unbeaten,
            shipped,
            text.per_task_sentence(per_task, choice),
            self._cheaper(),
            self._mixed(),
            *self._together(answers, affinity),
        ]
        warnings += self._evidence_warnings(answers)
        cheaper = self._choice.cheaper
        return {
            "choice": choice,
            "reference": self.reference,
            "strength": strength,
            "sentences": [sentence for sentence in sentences if sentence],
            "source_sentence": source,
            "warnings": warnings,
            "per_task_best": dict(self._choice.per_task),
            "best_on_validation": self._choice.best,
            "cost_name": self._cost_name,
            "ship": ship,
            "help": answers,
            "per_task": per_task,
            "baseline": baseline,
            "cheaper": None
            if cheaper is None
            else {
                "plan": cheaper.plan,
                "than": cheaper.than,
                "change": cheaper.change,
                "lower": cheaper.lower,
                "lowest": cheaper.lowest,
                "taken": cheaper.plan == choice,
                "cost": self._costs[cheaper.plan],
                "cost_of_best": self._costs[cheaper.than],
            },
            "tolerance": self._tolerance,
            "expected": {name: self._expected(name) for name in self._plans},
        }

    def _expected(self, plan: str) -> Row:
        best = self._choice.best
        return {
            "behind_best": self._table.behind(plan, best),
            "tasks": {task: self._table.behind(plan, best, task) for task in self._tasks},
        }

    def _rival(self) -> str | None:
        """Return the plan that the choice is compared with if there are no separate models, or if they are the choice."""
        others = [name for name in self._plans if name != self._choice.plan and not is_baseline(self._plans[name])]
        others = others or [name for name in self._plans if name != self._choice.plan]
        return self._table.best(others) or next(iter(others), None)

    def _ship(self) -> tuple[str, str, Row | None]:
        choice, reference = self._choice.plan, self.reference
        rival = self._rival()
        if reference is None or choice == reference:
            pair = None if rival is None else (choice, rival) if reference is None else (rival, choice)
        else:
            pair = (choice, reference)
        row = self.mean(*pair) if pair is not None else None
        found = Shipped(
            choice=choice,
            best=self._choice.best,
            is_cheaper=self._choice.cheaper is not None and self._choice.cheaper.plan == choice,
            reference=reference,
            row=row,
            rival_is_joint=rival is not None and self._plans[rival].role == "joint",
            cost=self._cost_phrase(choice, reference) if reference is not None and choice != reference else "",
            num_tasks=len(self._tasks),
            weighted=bool(self._bank.weights),
        )
        return *ship_sentence(found), row

    def _cost_phrase(self, plan: str, other: str) -> str:
        return text.ratio_phrase(self._costs[plan], self._costs[other], self._cost_name)

    def _cheaper(self) -> str | None:
        cheaper = self._choice.cheaper
        if cheaper is None:
            return None
        assert self._costs[cheaper.plan] < CLEARLY_CHEAPER * self._costs[cheaper.than]
        return cheaper_sentence(
            cheaper,
            taken=cheaper.plan == self._choice.plan,
            tolerance=self._tolerance,
            cost=self._cost_phrase(cheaper.plan, cheaper.than),
        )

    def _mixed(self) -> str | None:
        """Say what a mixed plan is made of that is chosen, or that is named as the cheaper one."""
        named = [self._choice.plan, *([self._choice.cheaper.plan] if self._choice.cheaper is not None else [])]
        found = {name: tasks for name in named if (tasks := plans_of_tasks(self._plans[name]))}
        return next((mixed_sentence(name, tasks) for name, tasks in found.items()), None)

    def _baseline(self) -> tuple[str | None, Row | None]:
        """Compare the choice with the best simple baseline; if that is the choice, compare the best other plan with it."""
        simple = [name for name in self._plans if is_baseline(self._plans[name])]
        baseline = self._choice.plan if self._choice.plan in simple else self._table.best(simple) or next(iter(simple), None)
        others = [name for name in self._plans if name not in simple]
        plan = self._choice.plan if self._choice.plan in others else self._table.best(others)
        if baseline is None or plan is None:
            return None, None
        row, rows = compare_with_baseline(self._bank, plan, baseline)
        if row is None:
            return None, None
        unbeaten = [item["task"] for item in rows if not beats(item)]
        beaten = plan == self._choice.plan and beats(row)
        sentence = baseline_sentence(row, unbeaten, baseline=baseline, choice=self._choice.plan, num_tasks=len(self._tasks))
        return sentence, {**row, "beaten": beaten, "unbeaten": unbeaten}

    def _unlearned(self, plan: str, reference: str) -> Row | None:
        """Return the changes of two plans against the best simple baseline if neither was shown to beat it; None otherwise."""
        simple = [name for name in self._plans if is_baseline(self._plans[name])]
        baseline = self._table.best(simple)
        if baseline is None:
            return None
        first, second = (compare_with_baseline(self._bank, name, baseline)[0] for name in (plan, reference))
        if first is None or second is None or beats(first) or beats(second):
            return None
        return {"baseline": baseline, "plan": first["difference"], "reference": second["difference"]}

    def _together(self, answers: Sequence[Row], affinity: Mapping[str, Any]) -> list[str]:
        """Say whether the tasks help each other, for each kind of model that was tried both ways."""
        if len(self._tasks) < 2:
            return []
        if not answers:
            return [not_tested_sentence([name for name in self._plans if self._plans[name].role == "joint"])]
        phrases = text.affinity_phrases(affinity)
        # Affinities were measured in one of the plans only, that with the controls.
        checked = [any(row["control"] is not None for row in answer["tasks"]) for answer in answers]
        weighted = bool(self._bank.weights)
        return [
            together_sentence(answer, phrases if flag else (), weighted=weighted)
            for answer, flag in zip(answers, checked, strict=True)
        ]

    def _evidence_warnings(self, answers: Sequence[Row]) -> list[str]:
        warnings = []
        if self.reference is None:
            warnings.append("No plan of separate models finished, so there is no delta-m against them.")
        base = self.reference or self._choice.plan
        pairs = [(name, base) for name in self._plans if name != base]
        return warnings + evidence_sentences(self._bank, [*pairs, *((row["plan"], row["reference"]) for row in answers)])


def _intervals_json(bank: ScoreBank, name: str) -> dict[str, dict[str, Any]]:
    return {
        task: {metric: interval.to_json() for metric, interval in metrics.items()}
        for task, metrics in bank.intervals(name).items()
    }


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

"""Everybody whom the verdict compares: finalists with what they answered, the ensemble and the mixed plan of them, controls, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.records import Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.sentences import join_words
from graftwork.workflows.fit.answers import Answers, answers_of, judged_folds, judged_suite
from graftwork.workflows.fit.combined import blend_plan
from graftwork.workflows.fit.ensemble import build_ensemble
from graftwork.workflows.fit.mixed import build_mixed
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.result_parts import job_ledger
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["JudgedField", "judged_field", "rows_words"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedField:
    """What :func:`graftwork.evaluation.choice.verdict.build_verdict` needs, and what the report says of it."""

    suite: Suite
    """Its test rows are those that are judged."""
    finals: Mapping[str, list[FinalRun]]
    answers: Mapping[str, Sequence[Answers]]
    """The same finalists with what they answered on validation rows."""
    controls: Mapping[str, list[FinalRun]]
    plans: Mapping[str, Plan]
    ledgers: Mapping[str, Ledger]
    affinity: dict[str, Any] | None
    members: Mapping[str, Mapping[str, Mapping[str, float]]]
    """``{name: {plan: {task: weight}}}`` of the ensemble and of the mixed plan, as far as there are any."""
    measured: Mapping[str, Any]
    """On what the scores were measured, for ``result.json``."""
    warnings: list[str] = field(default_factory=list)

    def weights(self, choice: str) -> dict[str, Mapping[str, float]]:
        """Return ``{plan: {task: weight}}`` of what is handed over for a choice."""
        if choice in self.members:
            return dict(self.members[choice])
        return {choice: dict.fromkeys(self.suite.task_names, 1.0)}


def _steps(jobs: Mapping[int, TrainJob]) -> int:
    return next(iter(jobs.values())).max_steps


def _sample_note(context: RunContext[FitSettings], outcome: RaceOutcome, suite: Suite) -> list[str]:
    """Say that the first rungs saw a part of the rows, and how many finalists saw."""
    rows, all_rows = context.maker.facts.race_rows, len(suite.splits["train"])
    # A first model was compared with nothing, which its own warning says.
    if not rows or outcome.first_model:
        return []
    seen = {name: max((job.rows or all_rows for job in jobs.values()), default=0) for name, jobs in outcome.finals.items()}
    return [f"The first two rungs compared plans on {rows:,} of {all_rows:,} training rows; {rows_words(seen, all_rows)}."]


def rows_words(seen: Mapping[str, int], all_rows: int) -> str:
    """Return how many training rows finalists learned from.

    Args:
        seen: ``{plan: rows}``.
        all_rows: Training rows that there are.

    Example:
        >>> rows_words({"lightgbm": 480_000, "separate": 60_000, "linear": 60_000}, 600_000)
        '`lightgbm` learned from 480,000 of them, the other finalists from 60,000: more did not fit into the time limit'
    """
    if all(rows >= all_rows for rows in seen.values()):
        return "finalists learned from all of them"
    by_rows: dict[int, list[str]] = {}
    for name, rows in sorted(seen.items(), key=lambda item: -item[1]):
        by_rows.setdefault(rows, []).append(f"`{name}`")
    counts = {rows: "all" if rows >= all_rows else f"{rows:,}" for rows in by_rows}
    if len(by_rows) == 1:
        return f"finalists learned from {next(iter(counts.values()))} of them: more did not fit into the time limit"
    first, *more, last = by_rows
    parts = [f"{join_words(by_rows[first])} learned from {counts[first]} of them"]
    parts += [f"{join_words(by_rows[rows])} from {counts[rows]}" for rows in more]
    parts.append(f"the other finalists from {counts[last]}")
    return ", ".join(parts) + ": more did not fit into the time limit"


def judged_field(context: RunContext[FitSettings], outcome: RaceOutcome) -> JudgedField:
    """Read what the finalists answered and add the mixed plan and the ensemble."""
    folds = judged_folds(context, outcome.finals)
    suite = judged_suite(context.suite, folds)
    answers: dict[str, list[Answers]] = {}
    warnings = []
    for name, jobs in outcome.finals.items():
        answers[name] = answers_of(context, jobs, suite, folds)
        if not answers[name]:
            del answers[name]
            warnings.append(f"`{name}` did not finish all folds within the time limit, so it is not compared.")
    controls = {task: answers_of(context, jobs, suite, folds) for task, jobs in outcome.controls.items()}
    finals = {name: [one.final for one in runs] for name, runs in answers.items()}
    plans, ledgers = dict(context.plans), {name: job_ledger(context.run, outcome.finals[name]) for name in finals}
    found = []
    if not context.settings.single:
        found = [build_mixed(suite, answers, context.settings.weights), build_ensemble(suite, answers)]
    # A plan of the user may have the name.
    combined = [one for one in found if one is not None and one.name not in plans]
    for one in combined:
        members = [
            {"plan": plans[name].to_json(), "steps": _steps(outcome.finals[name]), "weights": dict(weights)}
            for name, weights in one.weights.items()
        ]
        plans[one.name] = blend_plan(one.name, one.title, members, suite.kinds)
        finals[one.name] = [run.final for run in one.runs]
        answers[one.name] = list(one.runs)
        needed = [job_ledger(context.run, outcome.finals[name], own) for name, own in one.weights.items()]
        ledgers[one.name] = Ledger.together(needed)
    return JudgedField(
        suite=suite,
        finals=finals,
        answers=answers,
        controls={task: [one.final for one in runs] for task, runs in controls.items() if runs},
        plans=plans,
        ledgers=ledgers,
        affinity=outcome.affinity,
        members={one.name: one.weights for one in combined},
        measured={
            "folds": folds.number if folds else 0,
            "judged_folds": len(folds.judged) if folds else 0,
            "rows": len(suite.splits["test"]),
            "training_rows": len(suite.splits["train"]),
            "race_rows": context.maker.facts.race_rows,
        },
        warnings=[*warnings, *_sample_note(context, outcome, suite)],
    )

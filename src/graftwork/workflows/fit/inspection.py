"""A look into the chosen plan before its model is handed over: which columns matter, and what more rows would bring.

It takes a small share of the time limit, and nothing of what the model on all rows needs; where there is no time, it is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.data.suite import Suite
from graftwork.evaluation.learning_curve import curve_sentence, learning_curve
from graftwork.workflows.fit.attempts import plan_seconds
from graftwork.workflows.fit.judged_field import JudgedField
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.job_data import read_predictions
from graftwork.workflows.runs.jobs.curve import CurveJob
from graftwork.workflows.runs.jobs.importance import ImportanceJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["INSPECTION_SHARE", "inspect_choice"]

INSPECTION_SHARE = 0.04
"""Share of the time limit that all of it may take."""
LEFT_SHARE = 0.25
"""Share of the time that is left which it may take: the model on all rows comes after it."""
LEAST_SECONDS = 0.4
CURVE_SHARE = 0.6
"""Share of the seconds for the learning curve."""
PARTS = (0.125, 0.25, 0.5)
"""Shares of the training rows that a plan is trained on; the finals are those on all."""
LEAST_ROWS = 160
"""Training rows below which an eighth of them says nothing."""
MOST_BEHIND = 15.0
"""Percent of the best expected score that the plan of the curve may be behind."""
MOST_TEST_ROWS = 4_000
MOST_TASKS = 30
_NO_TIME = "the time limit left no time for it"


def inspect_choice(
    context: RunContext[FitSettings], outcome: RaceOutcome, field: JudgedField, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``importance`` and ``learning_curve`` of ``result.json``.

    Args:
        context: The run.
        outcome: Gives the finished trainings.
        field: Everybody who was compared.
        verdict: Gives the choice and the expected scores.

    Returns:
        ``importance``: ``plan`` and what :class:`~graftwork.workflows.runs.jobs.importance.ImportanceJob` measures; ``learning_curve``:
        ``plan``, ``sentence`` and what :func:`~graftwork.evaluation.learning_curve.learning_curve` returns. What there was no time for
        has a ``reason`` only.
    """
    if outcome.first_model:
        return _nothing(_NO_TIME, _NO_TIME)
    seconds = float(decided(context, "inspection", lambda: _seconds(context)))
    if seconds < 0:
        return _nothing(_NO_TIME, _NO_TIME)
    is_parallel = context.settings.num_workers > 1
    importance = _importance_job(context, outcome, field, verdict["choice"], seconds * (0.8 if is_parallel else 1 - CURVE_SHARE))
    name, curves = _curve_jobs(context, outcome, verdict, seconds)
    jobs: list[Job] = [importance, *(job for row in curves for job in row)]
    context.run.emit("phase", phase="inspection", jobs=len(jobs), plans=[verdict["choice"]])
    answers = context.run_jobs(jobs, seconds=seconds or None)
    return {
        "importance": _importance(verdict["choice"], answers.get(importance.id)),
        "learning_curve": _curve(context, outcome, name, curves, answers, seconds)
        if name
        else {"reason": _why_no_curve(context)},
    }


def _nothing(importance: str, curve: str) -> dict[str, Any]:
    return {"importance": {"reason": importance}, "learning_curve": {"reason": curve}}


def _seconds(context: RunContext[FitSettings]) -> float:
    """Return the seconds for all of it; 0 is a fixed effort, below 0 there is no time."""
    left, limit = seconds_left(context), context.settings.time_limit
    if left is None or limit is None:
        return 0.0
    seconds = min(INSPECTION_SHARE * limit, LEFT_SHARE * left)
    return seconds if seconds >= LEAST_SECONDS else -1.0


def _numbers(context: RunContext[FitSettings], outcome: RaceOutcome, plans: Sequence[str]) -> list[int]:
    """Return the seeds that all plans finished; with folds, those of the first repetition."""
    folds = context.maker.facts.folds
    common = set.intersection(*(set(outcome.finals[name]) for name in plans))
    return sorted(number for number in common if not folds or number < folds)


def _importance_job(
    context: RunContext[FitSettings], outcome: RaceOutcome, field: JudgedField, choice: str, seconds: float
) -> ImportanceJob:
    weights = field.weights(choice)
    numbers = _numbers(context, outcome, list(weights))
    if not context.maker.facts.folds:
        # Other seeds answer the same rows again.
        numbers = numbers[:1]
    trained = [(outcome.finals[name][number], own) for number in numbers for name, own in weights.items()]
    return context.maker.importance(field.plans[choice], trained, seconds)


def _importance(choice: str, answer: Mapping[str, Any] | None) -> dict[str, Any]:
    found = dict((answer or {}).get("importance") or {})
    if not found:
        return {"reason": str((answer or {}).get("message") or _NO_TIME)}
    return {"plan": choice, **found}


def _curve_jobs(
    context: RunContext[FitSettings], outcome: RaceOutcome, verdict: Mapping[str, Any], seconds: float
) -> tuple[str, list[list[CurveJob]]]:
    """Return the plan of the curve and its trainings, a list for each part of the rows; no name if there is none."""
    if len(context.suite.splits["train"]) < LEAST_ROWS:
        return "", []
    expected = verdict.get("expected") or {}
    behind = {name: (expected.get(name) or {}).get("behind_best") for name in outcome.finals}
    able = [name for name, value in behind.items() if value is not None and value <= MOST_BEHIND]
    for name in sorted(able, key=lambda name: float(behind[name] or 0.0)):
        plan, finals = context.plans[name], outcome.finals[name]
        if plan.group == "baseline" or any(job.rows or job.cut for job in finals.values()):
            continue
        numbers = _numbers(context, outcome, [name])
        if seconds:
            each = len(PARTS) * plan_seconds(context, finals) / max(1, context.settings.num_workers)
            number = int(CURVE_SHARE * seconds / max(each, 1e-9))
            numbers = numbers[:number]
        elif not plan.fitted_at_once:
            continue
        if len(numbers) >= (2 if context.maker.facts.folds else 1):
            return name, [
                [context.maker.curve(finals[number], place, part) for number in numbers] for place, part in enumerate(PARTS)
            ]
    return "", []


def _why_no_curve(context: RunContext[FitSettings]) -> str:
    rows = len(context.suite.splits["train"])
    if rows < LEAST_ROWS:
        return f"{rows} training rows are too few for a learning curve; it takes {LEAST_ROWS}"
    return "no good plan was cheap enough to be trained again on parts of the rows"


def _curve(
    context: RunContext[FitSettings],
    outcome: RaceOutcome,
    name: str,
    curves: Sequence[Sequence[CurveJob]],
    answers: Mapping[str, Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    end = time.monotonic() + (0.5 * seconds or math.inf)
    found = [[answers.get(job.id) for job in row] for row in curves]
    if any(one is None or one["status"] != "ok" or one.get("cut") for row in found for one in row):
        problems = [str(one["message"]) for row in found for one in row if one is not None and one.get("message")]
        return {"reason": problems[0] if problems else _NO_TIME}
    finals = [outcome.finals[name][job.seed] for job in curves[0]]
    suites = [job.suite(context.run) for job in finals]
    sizes = [round(float(np.mean([one["rows"] for one in row if one is not None]))) for row in found]
    sizes.append(round(float(np.mean([len(suite.splits["train"]) for suite in suites]))))
    if len(set(sizes)) < len(sizes):
        return {"reason": "the training rows are too few groups for a learning curve"}
    folds = context.maker.facts.folds
    rows, places = _test_rows(suites, folds)
    tasks = context.suite.tasks[:MOST_TASKS]
    curve = learning_curve(
        tasks,
        {task.name: np.asarray(context.suite.targets[task.name][rows]) for task in tasks},
        sizes,
        [_answers(context, row, folds, places) for row in (*curves, finals)],
        groups=None if context.suite.groups is None else context.suite.groups[rows],
        seed=context.settings.seed,
        is_late=lambda: time.monotonic() > end,
    )
    facts = {"plan": name, "grouped": context.suite.groups is not None}
    return {**facts, **curve, "sentence": curve_sentence(curve, name, grouped=facts["grouped"] is True)}


def _test_rows(suites: Sequence[Suite], folds: int) -> tuple[Any, Any]:
    """Return the rows that are judged, and their places among all test rows of the trainings."""
    parts = [np.asarray(suite.splits["test"]) for suite in (suites if folds else suites[:1])]
    rows = np.concatenate(parts)
    places = np.arange(len(rows))
    if len(rows) > MOST_TEST_ROWS:
        places = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_TEST_ROWS])
    return rows[places], places


def _answers(context: RunContext[FitSettings], jobs: Sequence[Job], folds: int, places: Any) -> list[dict[str, Any]]:
    """Return the answers of the trainings of one size: one for each seed, or, with folds, all of them together."""
    parts = [read_predictions(context.run.job(job.id) / "predictions.safetensors", context.suite)["test"] for job in jobs]
    if folds:
        parts = [{task: np.concatenate([part[task] for part in parts]) for task in parts[0]}]
    return [{task: values[places] for task, values in part.items()} for part in parts]

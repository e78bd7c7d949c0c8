"""What every method costs, which of them fit the limits, and the choice of ``auto``: measured, not computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.quantities import format_bytes
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import folder_name
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.jobs.tune_cost import TuneCostJob
from graftwork.workflows.tune.methods import METHODS, TuneMethod, plan_of
from graftwork.workflows.tune.settings import TuneSettings, parse_trainable

__all__ = ["Row", "choose", "measure_costs", "memory_of"]

Row = dict[str, Any]
"""One method: ``method``, ``title``, ``status`` (``ok``, ``over`` a limit, ``not possible``), ``message``, and the cost."""

_LEAST_STEPS, _TRIAL_SHARE = 8, 0.1
"""Steps of a trial of ``auto``: the slowest method makes the least number (or a tenth of the training, if that is more), the others
as many as fit into the same seconds."""


def memory_of(cost: Mapping[str, Any]) -> int:
    """Return the bytes that a step takes besides the model."""
    return int(cost["held_bytes"]) + int(cost["optimizer_bytes"])


def measure_costs(context: RunContext[TuneSettings], asked: TuneMethod | None) -> list[Row]:
    """Measure all methods, one after the other so that none disturbs another; finished measurements answer from their folders.

    Args:
        context: The run.
        asked: The method that the user named, with its settings; None for ``auto``.
    """
    methods = [asked if asked is not None and method.name == asked.name else method for method in METHODS]
    if asked is not None and asked.name not in {method.name for method in METHODS}:
        methods.append(asked)
    context.run.emit("phase", phase="costs", jobs=len(methods), plans=[method.name for method in methods])
    rows = []
    for method in methods:
        job = TuneCostJob(id=folder_name(f"cost-{method.name}"), phase="costs", plan=plan_of(method), facts=context.maker.facts)
        answer = context.run_jobs([job]).get(job.id, {"status": "stopped"})
        context.pause_point()
        rows.append(_row(context.settings, method, answer))
    return rows


def _row(settings: TuneSettings, method: TuneMethod, answer: Mapping[str, Any]) -> Row:
    row: Row = {"method": method.name, "title": method.title, "status": "ok", "message": ""}
    if answer.get("status") != "ok":
        return {**row, "status": "not possible", "message": str(answer.get("message") or answer.get("status"))}
    cost = dict(answer["cost"])
    reasons = []
    if settings.max_trainable:
        limit, is_share = parse_trainable(settings.max_trainable)
        most = limit * cost["total"] if is_share else limit
        if cost["trainable"] > most:
            reasons.append(f"{cost['trainable']:,} numbers learn, more than {settings.max_trainable} ({most:,.0f})")
    if settings.max_memory is not None and memory_of(cost) > settings.max_memory:
        reasons.append(f"a step takes {format_bytes(memory_of(cost))}, more than {format_bytes(settings.max_memory)}")
    return {**row, **cost, "status": "over" if reasons else "ok", "message": "; ".join(reasons)}


def choose(context: RunContext[TuneSettings], rows: Sequence[Row], methods: Mapping[str, TuneMethod]) -> tuple[str, str]:
    """Return the method for ``auto`` and why: of those that fit the limits the one that gets furthest in the same seconds.

    Args:
        context: The run.
        rows: Costs of all methods.
        methods: The methods by name.

    Raises:
        ConfigError: If no method fits the limits, or none could be tried.
    """
    fitting = [row for row in rows if row["status"] == "ok"]
    if not fitting:
        # Methods with one reason, such as a file that the backbone lacks, are named together.
        reasons: dict[str, list[str]] = {}
        for row in rows:
            reasons.setdefault(str(row["message"]), []).append(str(row["method"]))
        said = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        if not any(row["status"] == "over" for row in rows):
            raise ConfigError("No method can tune this backbone.", said)
        raise ConfigError("No method fits the limits. Give more with --max-trainable or --max-memory, or leave them out.", said)
    if len(fitting) == 1:
        return str(fitting[0]["method"]), "It is the only method that fits the limits."
    slowest = max(row["seconds_per_step"] for row in fitting)
    steps = context.settings.steps or 0
    least = max(_LEAST_STEPS, round(_TRIAL_SHARE * steps))
    trials: dict[str, TrainJob] = {}
    for row in fitting:
        # No more than the training itself: frozen features are so fast that they would see each row a hundred times.
        count = min(max(steps, least), round(least * slowest / max(row["seconds_per_step"], 1e-9)))
        trials[row["method"]] = TrainJob(
            id=folder_name(f"trial-{row['method']}"),
            phase="trial",
            plan=plan_of(methods[row["method"]]),
            facts=context.maker.facts,
            until=count,
            max_steps=count,
        )
    context.run.emit("phase", phase="trials", jobs=len(trials), plans=list(trials))
    answers = {}
    for name, job in trials.items():
        answer = context.run_jobs([job]).get(job.id, {})
        context.pause_point()
        if answer.get("status") == "ok":
            answers[name] = answer["validation"]
    scores = _changes(context.suite, answers)
    if not scores:
        raise ConfigError("None of the methods could be tried on a few steps; see log.jsonl in the run folder.")
    for row in fitting:
        if row["method"] in scores:
            row["trial_steps"], row["trial_score"] = trials[row["method"]].until, scores[row["method"]]
    # `max` keeps the first of equals, and methods come in the order of the numbers that learn.
    best = max(scores, key=lambda name: scores[name])
    others = f"{len(scores)} methods fit the limits"
    return (
        best,
        f"{others}; with the same seconds each, {best} has the best validation scores after {trials[best].until:,} steps.",
    )


def _changes(suite: Suite, answers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Return the mean over tasks of the primary metric's change against the mean of all methods, in percent; up is better."""
    from graftwork.evaluation.delta_m import relative_changes
    from graftwork.evaluation.metrics import default_metric

    def value(scores: Mapping[str, Mapping[str, Any]], task: TaskSpec) -> float:
        found = scores.get(task.name, {}).get(default_metric(task))
        return float("nan") if found is None else float(found)

    changes = []
    for task in suite.tasks:
        values = np.array([value(scores, task) for scores in answers.values()])
        if np.isfinite(values).any():
            changes.append(relative_changes(task, values, np.nanmean(values)))
    if not changes:
        return {}
    means = np.nanmean(np.stack(changes), axis=0)
    return {name: float(mean) for name, mean in zip(answers, means, strict=True) if np.isfinite(mean)}

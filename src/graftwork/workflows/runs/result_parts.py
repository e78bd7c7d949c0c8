"""What the results of all races and comparisons have in common: the head of ``result.json``, finished trainings, and steps that
may fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import StorageError
from graftwork.core.files import write_json
from graftwork.core.input_kinds import join_kinds
from graftwork.core.records import Ledger
from graftwork.core.version import __version__
from graftwork.data.suite import Suite
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.job_data import StoredPredictions
from graftwork.workflows.runs.run_folder import RunFolder, utc_now

if TYPE_CHECKING:
    from graftwork.evaluation.choice.scores import FinalRun

__all__ = ["final_run", "final_runs", "job_ledger", "result_head", "timing", "try_last_steps", "try_step"]

MOST_COLUMNS = 300
"""Columns whose fate ``result.json`` holds."""


def try_step(warnings: list[str], what: str, action: Callable[[], None]) -> None:
    """Run a step that must not cost the user the result; only a full disk is worth stopping for."""
    try:
        action()
    except StorageError:
        raise
    except Exception as error:
        warnings.append(f"{what}: {type(error).__name__}: {error}")


def try_last_steps(run: RunFolder, result: Mapping[str, Any], steps: Mapping[str, Callable[[], None]]) -> None:
    """Run steps that read the written result; if one fails, the result is written again with the warning.

    Args:
        run: The run; its ``result.json`` holds ``result``.
        result: The result; its warnings grow.
        steps: ``{what to say if it fails: step}``.
    """
    warnings = result["verdict"]["warnings"]
    # Earlier warnings are in the file already; only new ones ask for another write.
    before = len(warnings)
    for what, step in steps.items():
        try_step(warnings, what, step)
    if len(warnings) > before:
        write_json(run.result_file, result)


def result_head(context: RunContext[Any], result_format: str) -> dict[str, Any]:
    """Return what every ``result.json`` begins with: format, version, command, suite, settings and machine."""
    run, settings, suite = context.run, context.settings, context.suite
    return {
        "format": result_format,
        "version": __version__,
        "created": utc_now(),
        "command": run.state["command"],
        "suite": _suite_facts(suite),
        "settings": settings.to_json() | {"backbone": run.state.get("backbone", "") or None},
        "machine": run.state.get("machine", {}),
    }


def timing(run: RunFolder) -> dict[str, Any]:
    """Return ``timing`` of ``result.json``."""
    return {"started": run.state["created"], "finished": utc_now(), "seconds": round(run.seconds_used(), 1)}


def final_runs(context: RunContext[Any], trained: Mapping[str, Mapping[int, Job]]) -> dict[str, list[FinalRun]]:
    """Return the finished trainings of each plan or task by seed, as the verdict reads them.

    Args:
        context: The run.
        trained: ``{plan or task: {seed: job}}``.
    """
    return {name: [final_run(context, jobs[seed]) for seed in sorted(jobs)] for name, jobs in trained.items()}


def final_run(context: RunContext[Any], job: Job) -> FinalRun:
    """Return what a finished training predicts; its arrays are read when they are asked for."""
    from graftwork.evaluation.choice.scores import FinalRun

    run, suite = context.run, context.suite
    result, file = run.result(job.id) or {}, run.job(job.id) / "predictions.safetensors"
    validation = {
        task: {metric: float("nan") if value is None else float(value) for metric, value in scores.items()}
        for task, scores in result.get("validation", {}).items()
    }
    transfer = StoredPredictions(file, suite, "transfer")
    return FinalRun(
        plan_name=job.plan.name,
        seed=job.seed,
        predictions=StoredPredictions(file, suite, "test"),
        validation=validation,
        # An empty mapping means that the suite has no transfer rows.
        transfer_predictions=transfer or None,
    )


def job_ledger(run: RunFolder, jobs: Mapping[int, Job], tasks: Collection[str] | None = None) -> Ledger:
    """Return the costs of one training of a plan: those of its first seed, gaps filled from the estimate.

    Args:
        run: The run.
        jobs: Finished trainings of one plan by seed.
        tasks: Tasks that it is to answer; stored numbers and operations that others have for themselves do not count. None: all.
    """
    first = jobs[min(jobs)]
    result = run.result(first.id) or {}
    ledger = Ledger.from_json(result["ledger"])
    if tasks is not None:
        # Older versions did not write it.
        own = {task: Ledger.from_json(costs) for task, costs in result.get("own_costs", {}).items()}
        ledger = ledger.without([costs for task, costs in own.items() if task not in tasks])
    estimate = run.state.get("estimates", {}).get(first.plan.name, {})
    return replace(
        ledger,
        # 0 stands for a gap: no latency and no memory is ever 0.
        latency_ms_batch1=ledger.latency_ms_batch1 or float(estimate.get("latency_ms", 0.0)),
        peak_rss_bytes=ledger.peak_rss_bytes or int(estimate.get("peak_rss_bytes", 0)),
    )


def _suite_facts(suite: Suite) -> dict[str, Any]:
    """Return ``suite`` of ``result.json``."""
    columns = suite.raw.get("columns", {})
    return {
        "name": suite.name,
        "modality": join_kinds(suite.kinds),
        "rows": len(suite),
        "splits": {name: len(rows) for name, rows in suite.splits.items()},
        "tasks": [task.to_json() for task in suite.tasks],
        "notes": list(suite.notes),
        "credits": dict(suite.credits),
        "sources": dict(suite.sources),
        "fingerprint": suite.fingerprint(),
        "domains": list(suite.domains),
        # Those of the table that the suite was read from, bounded.
        "columns": dict(itertools.islice(columns.items(), MOST_COLUMNS)),
        "num_columns": len(columns),
    }

"""After the race: verdict on the test rows, examples, the deployable model, the report; ``result.json`` is written last but one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import graftwork
from graftwork.core.errors import GraftworkError, StorageError
from graftwork.core.files import write_json
from graftwork.core.records import Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.workflows.fit.auto_groups import suggest_grouping
from graftwork.workflows.fit.deploy import deploy_model, write_card
from graftwork.workflows.fit.examples import sample_predictions
from graftwork.workflows.fit.job_data import StoredPredictions, read_predictions
from graftwork.workflows.fit.jobs import Job
from graftwork.workflows.fit.plan_jobs import JobMaker
from graftwork.workflows.fit.pool import InlinePool, StopRequest, WorkerPool
from graftwork.workflows.fit.race import RaceOutcome
from graftwork.workflows.fit.run_folder import RunFolder, clean_json, utc_now
from graftwork.workflows.fit.schedule import Schedule
from graftwork.workflows.fit.settings import FitSettings

if TYPE_CHECKING:
    from graftwork.workflows.fit.verdict_scores import FinalRun

__all__ = ["RESULT_FORMAT", "final_run", "finish_run", "job_ledger", "suite_facts", "try_step"]

RESULT_FORMAT = "graftwork-fit-1"


def finish_run(
    run: RunFolder,
    settings: FitSettings,
    suite: Suite,
    plans: Mapping[str, Plan],
    schedule: Schedule,
    maker: JobMaker,
    outcome: RaceOutcome,
    pool: WorkerPool | InlinePool,
    stop: Callable[[], StopRequest | None],
) -> dict[str, Any]:
    """Return the result, as ``result.json`` holds it.

    Raises:
        GraftworkError: If no plan reached its end, so that there is nothing to judge.
    """
    if not outcome.finals:
        raise GraftworkError(
            f"No plan was finished within the time limit, so there is no verdict. Finished work is kept in {run.path}; go on with: "
            f"graftwork fit --resume {run.path} --time-limit 10m"
        )
    run.emit("phase", phase="verdict", jobs=0)
    verdict = _verdict(run, settings, suite, plans, schedule, outcome)
    result = _collect(run, settings, suite, plans, outcome, verdict, list(schedule.notes))
    choice = result["verdict"]["choice"]
    chosen = outcome.finals[choice]
    best_seed = min(chosen)
    predictions = read_predictions(run.job(chosen[best_seed]["id"]) / "predictions.safetensors", suite)
    result["examples"] = sample_predictions(suite, predictions["test"], seed=settings.seed)
    run.emit("phase", phase="model", jobs=1)
    warnings = result["verdict"]["warnings"]
    try_step(
        warnings,
        "The model could not be exported",
        lambda: deploy_model(run, suite, maker, choice, best_seed, pool, stop),
    )
    result["timing"] = _timing(run)
    result = clean_json(result)
    write_json(run.result_file, result)
    run.emit("phase", phase="report", jobs=0)

    def report() -> None:
        from graftwork.reporting.report import write_report

        write_report(result, run.path / "report.html")

    before = len(warnings := result["verdict"]["warnings"])
    try_step(warnings, "The model card could not be written", lambda: write_card(run, result))
    try_step(warnings, "The report could not be written", report)
    if len(warnings) > before:
        write_json(run.result_file, result)
    return result


def try_step(warnings: list[str], what: str, action: Callable[[], None]) -> None:
    """Run a step that must not cost the user the result; only a full disk is worth stopping for."""
    try:
        action()
    except StorageError:
        raise
    except Exception as error:
        warnings.append(f"{what}: {type(error).__name__}: {error}")


def _verdict(
    run: RunFolder, settings: FitSettings, suite: Suite, plans: Mapping[str, Plan], schedule: Schedule, outcome: RaceOutcome
) -> dict[str, Any]:
    from graftwork.workflows.fit.verdict import build_verdict

    return build_verdict(
        suite,
        {name: [final_run(run, suite, jobs[seed]) for seed in sorted(jobs)] for name, jobs in outcome.finals.items()},
        controls={task: [final_run(run, suite, jobs[seed]) for seed in sorted(jobs)] for task, jobs in outcome.controls.items()},
        affinity=outcome.affinity,
        ledgers={name: job_ledger(run, jobs) for name, jobs in outcome.finals.items()},
        plans=dict(plans),
        limits={"max_params": settings.max_params, "max_latency": settings.max_latency, "max_memory": settings.max_memory},
        seed=settings.seed,
    )


def final_run(run: RunFolder, suite: Suite, job: Job) -> FinalRun:
    """Return what a finished training predicts; its arrays are read when they are asked for."""
    from graftwork.workflows.fit.verdict_scores import FinalRun

    result, file = run.result(job["id"]) or {}, run.job(job["id"]) / "predictions.safetensors"
    validation = {
        task: {metric: float("nan") if value is None else float(value) for metric, value in scores.items()}
        for task, scores in result.get("validation", {}).items()
    }
    transfer = StoredPredictions(file, suite, "transfer")
    return FinalRun(
        plan_name=job["plan"]["name"],
        seed=job["seed"],
        predictions=StoredPredictions(file, suite, "test"),
        validation=validation,
        transfer_predictions=transfer or None,
    )


def job_ledger(run: RunFolder, jobs: Mapping[int, Job]) -> Ledger:
    """Return the costs of one training of a plan: those of its first seed, gaps filled from the estimate.

    Args:
        run: The run.
        jobs: Finished trainings of one plan by seed.
    """
    first = jobs[min(jobs)]
    ledger = Ledger.from_json((run.result(first["id"]) or {})["ledger"])
    estimate = run.state.get("estimates", {}).get(first["plan"]["name"], {})
    return replace(
        ledger,
        latency_ms_batch1=ledger.latency_ms_batch1 or float(estimate.get("latency_ms", 0.0)),
        peak_rss_bytes=ledger.peak_rss_bytes or int(estimate.get("peak_rss_bytes", 0)),
    )


def suite_facts(suite: Suite) -> dict[str, Any]:
    """Return ``suite`` of ``result.json``."""
    return {
        "name": suite.name,
        "modality": suite.modality,
        "rows": len(suite),
        "splits": {name: len(rows) for name, rows in suite.splits.items()},
        "tasks": [task.to_json() for task in suite.tasks],
        "notes": list(suite.notes),
        "credits": dict(suite.credits),
        "sources": dict(suite.sources),
        "fingerprint": suite.fingerprint(),
        "domains": list(suite.domains),
    }


def _collect(
    run: RunFolder,
    settings: FitSettings,
    suite: Suite,
    plans: Mapping[str, Plan],
    outcome: RaceOutcome,
    judged: Mapping[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    estimates = run.state.get("estimates", {})
    entries = {}
    for name in outcome.finals:
        entry = dict(judged["plans"].get(name, {}))
        entry |= {"plan": plans[name].to_json(), "finalist": True, "ledger": job_ledger(run, outcome.finals[name]).to_json()}
        entries[name] = entry
    excluded = [
        {"rung": 0, "plan": name, "seed": 0, "steps": 0, "status": "excluded", "message": estimate["reason"], "validation": {}}
        | {"score": None, "seconds": 0.0}
        for name, estimate in estimates.items()
        if not estimate["kept"]
    ]
    verdict = dict(judged["verdict"])
    verdict["warnings"] = [*verdict.get("warnings", ()), *outcome.warnings, *notes]
    others = {key: value for key, value in judged.items() if key not in ("plans", "verdict")}
    return {
        "format": RESULT_FORMAT,
        "version": graftwork.__version__,
        "created": utc_now(),
        "command": run.state["command"],
        "suite": suite_facts(suite),
        "settings": settings.to_json() | {"backbone": run.state.get("backbone", "") or None},
        "machine": run.state.get("machine", {}),
        "estimate": [
            {
                key: estimate.get(key)
                for key in ("plan", "seconds_per_step", "seconds", "peak_rss_bytes", "parameters", "kept", "reason")
            }
            for estimate in estimates.values()
        ],
        "race": [*excluded, *outcome.history],
        "plans": entries,
        "affinity": outcome.affinity,
        "gradients": outcome.gradients,
        "grouping": suggest_grouping(outcome.affinity),
        **others,
        "verdict": verdict,
        "examples": [],
        "timing": _timing(run),
    }


def _timing(run: RunFolder) -> dict[str, Any]:
    return {"started": run.state["created"], "finished": utc_now(), "seconds": round(run.seconds_used(), 1)}

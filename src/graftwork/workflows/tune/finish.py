"""From the finished training to what the user gets: the model, the delta, the ledger, the table of costs, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graftwork.core.files import write_json
from graftwork.reporting.formatting import duration, number
from graftwork.reporting.words import metric_words
from graftwork.workflows.fit.deploy import deploy_model
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.quantities import format_bytes, format_count
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job_data import StoredPredictions
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.result_parts import job_ledger, result_head, timing, try_last_steps, try_step
from graftwork.workflows.runs.run_folder import clean_json
from graftwork.workflows.tune.costs import memory_of
from graftwork.workflows.tune.settings import TuneSettings

__all__ = ["DELTA_FOLDER", "RESULT_FORMAT", "finish_tuning"]

RESULT_FORMAT = "graftwork-tune-1"
DELTA_FOLDER = "delta"


def finish_tuning(context: RunContext[TuneSettings], final: TrainJob) -> dict[str, Any]:
    """Export model and delta, and write result and report.

    Raises:
        GraftworkError: If the export failed.
    """
    run, warnings = context.run, list[str]()
    run.emit("phase", phase="report", jobs=0)
    weights = {final.plan.name: dict.fromkeys(context.suite.task_names, 1.0)}
    given = Handover(plan=final.plan, trained=(final,), parts=0, weights=weights)
    deploy_model(context, given, {})
    files: list[str] = []

    def small_folder() -> None:
        from graftwork.training.tuned_model import write_tuned

        # The run's own: a name that nobody gave was refused when the run went on.
        written = write_tuned(run.path / "model", run.path / DELTA_FOLDER, backbone=run.state["backbone"])
        files.extend(str(file.relative_to(run.path)) for file in written)

    try_step(warnings, "The folder with the delta alone could not be written", small_folder)
    result = clean_json(_result(context, final, files, warnings))
    write_json(run.result_file, result)

    def report() -> None:
        from graftwork.reporting.tune_report import write_tune_report

        write_tune_report(result, run.path / "report.html")

    try_last_steps(run, result, {"The report could not be written": report})
    return dict(result)


def _result(context: RunContext[TuneSettings], final: TrainJob, files: list[str], warnings: list[str]) -> dict[str, Any]:
    run, name = context.run, final.plan.name
    rows = run.state["costs"]
    row = next(item for item in rows if item["method"] == name)
    ledger = job_ledger(run, {0: final})
    scores = _scores(context, final)
    return {
        **result_head(context, RESULT_FORMAT),
        "method": name,
        "plan": final.plan.to_json(),
        "backbone": run.state["backbone"],
        "costs": rows,
        "ledger": {
            **ledger.to_json(),
            "parameters_trainable": row["trainable"],
            "parameters_in_delta": row["stored"],
            "held_bytes": row["held_bytes"],
            "optimizer_bytes": row["optimizer_bytes"],
            "seconds_per_step": row["seconds_per_step"],
        },
        "scores": scores,
        "delta": {"folder": DELTA_FOLDER if files else None, "files": files},
        "plans": {name: {"title": final.plan.title, "group": final.plan.group, "plan": final.plan.to_json()}},
        "verdict": {
            "choice": name,
            "sentences": _sentences(context, row, rows, scores),
            "warnings": [*warnings, *_warnings(run.result(final.id) or {})],
            "choice_strength": "",
        },
        "timing": timing(run),
    }


def _scores(context: RunContext[TuneSettings], final: TrainJob) -> dict[str, dict[str, Any]]:
    """Return the primary metric of each task on validation and test rows."""
    from graftwork.evaluation.metrics import default_metric, score_task

    suite, stored = context.suite, context.run.job(final.id) / "predictions.safetensors"
    found: dict[str, dict[str, Any]] = {}
    for split in ("val", "test"):
        rows = np.asarray(suite.splits.get(split, ()), dtype=np.int64)
        if not len(rows):
            continue
        predictions = StoredPredictions(stored, suite, split)
        for task in suite.tasks:
            values = score_task(task, np.asarray(suite.targets[task.name][rows]), predictions[task.name])
            entry = found.setdefault(task.name, {"metric": default_metric(task)})
            entry[split] = values.get(entry["metric"])
    return found


def _sentences(
    context: RunContext[TuneSettings], row: Mapping[str, Any], rows: list[dict[str, Any]], scores: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    state = context.run.state
    share = row["trainable"] / max(row["total"], 1)
    sentences = [
        f"`{row['method']}` tuned `{state['backbone']}`: {format_count(row['trainable'])} numbers learn, {100 * share:.3g} % of the "
        f"model's; {format_count(row['stored'])} are stored beside the backbone."
    ]
    if state.get("chosen_because"):
        sentences.append(state["chosen_because"])
    full = next((item for item in rows if item["method"] == "full" and "held_bytes" in item), None)
    if full is not None and row["method"] != "full":
        sentences.append(
            f"A step takes {format_bytes(memory_of(row))} besides the model and {duration(row['seconds_per_step'])}; full "
            f"tuning would take {format_bytes(memory_of(full))} and {duration(full['seconds_per_step'])}."
        )
    tested = [
        f"{name} {metric_words(entry['metric']).partition(',')[0]} {number(entry['test'])}"
        for name, entry in scores.items()
        if entry.get("test") is not None
    ]
    if tested:
        sentences.append(f"On the test rows: {'; '.join(tested)}.")
    return sentences


def _warnings(answer: Mapping[str, Any]) -> list[str]:
    if answer.get("still_improving"):
        return ["Validation scores were still improving when the steps were over; more steps (--steps) will probably help."]
    return []

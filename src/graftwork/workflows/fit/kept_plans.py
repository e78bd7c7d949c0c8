"""Models of the finalists that were not chosen, in ``plans/`` of the run folder, so that each can be used.

They are made of trainings that are there; what costs time is the export alone. It is done while the run keeps to its time limit,
and models that are large are left out; the result says which and why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.core.errors import GraftworkError, StorageError
from graftwork.serving.kept_plans import PLANS_FOLDER
from graftwork.workflows.fit.handover import Handover, at_hand
from graftwork.workflows.fit.judged_field import JudgedField
from graftwork.workflows.fit.kept_rows import KeptRows, averaged_tasks
from graftwork.workflows.fit.plan_folders import PlanFolder, plan_folders, remove_others
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.fit.whole_others import others_on_all_rows
from graftwork.workflows.runs.context import GRACE, RunContext
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["MOST_BYTES", "MOST_BYTES_TOGETHER", "keep_finalists"]

MOST_BYTES = 200 * 2**20
"""Bytes of a model from which on it is not kept."""
MOST_BYTES_TOGETHER = 500 * 2**20
"""Bytes that models of other finalists may take together."""
LIMIT_SHARE = 1.08
"""Share of the time limit at which the last of these exports is ended; the export of the chosen plan does not count."""
_BYTES_OF_A_NUMBER = 4
_NO_TIME = "the time limit left no time for its export"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """One model to keep."""

    given: Handover
    folder: PlanFolder
    seconds: float = 0.0
    """Seconds that its export is expected to take."""


def keep_finalists(
    context: RunContext[FitSettings],
    outcome: RaceOutcome,
    field: JudgedField,
    verdict: Mapping[str, Any],
    chosen: Handover,
    rows: KeptRows,
    improving: Collection[str] = (),
) -> dict[str, Any]:
    """Export the finalists that were not chosen, the better ones first, those that are made of several plans last.

    Where there is time they learn from all rows before.

    Args:
        context: The run.
        outcome: Gives the finished trainings.
        field: Everybody who was compared.
        verdict: Gives the choice and the order.
        chosen: What is handed over for the choice; it is exported already.
        rows: What kept-back rows say of the plans.
        improving: Plans that longer trainings would probably make better.

    Returns:
        ``kept_plans`` of ``result.json``: ``kept``, ``{name: what the model is made of}``, and ``not_kept``, ``{name: reason}``.
    """
    wishes = _wishes(context, outcome, field, verdict, chosen, improving)
    if context.settings.keep == "chosen":
        return {"kept": {}, "not_kept": dict.fromkeys(wishes, "--keep chosen asked for the chosen plan only")}
    remove_others(context.run, [wish.folder.name for wish in wishes.values()])
    kept: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    used, waiting = 0, []
    for name, wish in wishes.items():
        if wish.folder.holds(wish.given):
            wish.folder.tidy()
            used += wish.folder.size()
            kept[name] = _facts(wish)
            continue
        reason = wish.folder.problem() or _too_large(_expected_bytes(field, wish.given), used) or _gone(context, wish.given)
        if reason:
            reasons[name] = reason
        else:
            waiting.append(wish)
    context.run.emit("phase", phase="other finalists", jobs=len(waiting), plans=[wish.given.plan.name for wish in waiting])
    for wish, reason in _exported(context, rows, waiting, _export_seconds(context, chosen)):
        name, size = wish.given.plan.name, wish.folder.size()
        reason = reason or _too_large(size, used)
        if reason:
            wish.folder.remove()
            reasons[name] = reason
        else:
            used += size
            kept[name] = _facts(wish)
    return {"kept": {name: kept[name] for name in wishes if name in kept}, "not_kept": reasons}


def _wishes(
    context: RunContext[FitSettings],
    outcome: RaceOutcome,
    field: JudgedField,
    verdict: Mapping[str, Any],
    chosen: Handover,
    improving: Collection[str],
) -> dict[str, _Wish]:
    """Return what would be kept, by name, in the order of the exports."""
    expected = verdict.get("expected") or {}

    def order(name: str) -> tuple[bool, float]:
        value = (expected.get(name) or {}).get("behind_best")
        # What is made of several plans takes as long as all of them, which are wanted by their names first.
        return name in field.members, float("inf") if value is None else float(value)

    others = sorted((name for name in field.finals if name != verdict["choice"]), key=order)
    folders = plan_folders(context.run, others)
    whole = others_on_all_rows(context, outcome, others, chosen, improving) if context.settings.keep != "chosen" else {}
    found = {}
    for name in others:
        given = at_hand(context, name, field.plans[name].title, field.weights(name), outcome.finals, chosen, whole)
        seconds = _export_seconds(context, chosen) * len(given.trained) / len(chosen.trained)
        found[name] = _Wish(given=given, folder=folders[name], seconds=seconds)
    return found


def _exported(
    context: RunContext[FitSettings], rows: KeptRows, wishes: Sequence[_Wish], seconds_of_chosen: float
) -> Iterator[tuple[_Wish, str]]:
    """Export in groups of as many as there are workers; yield each model with the reason why there is none, empty if there is."""
    size = max(1, context.settings.num_workers)
    for start in range(0, len(wishes), size):
        group, left = wishes[start : start + size], _seconds_left(context, seconds_of_chosen)
        jobs: dict[str, Job] = {}
        for wish in group:
            if left is not None and wish.seconds >= left:
                yield wish, _NO_TIME
            else:
                jobs[wish.given.plan.name] = wish.given.job(context, wish.folder.fresh)
        # What is asked to end after some seconds is ended a little later, and may not be late then.
        answers = context.run_jobs(list(jobs.values()), past_deadline=True, seconds=None if left is None else left / GRACE)
        context.pause_point()
        for wish in group:
            if wish.given.plan.name in jobs:
                answer = answers.get(jobs[wish.given.plan.name].id, {"status": "stopped"})
                yield wish, _placed(context, rows, wish, answer)


def _placed(context: RunContext[FitSettings], rows: KeptRows, wish: _Wish, answer: Mapping[str, Any]) -> str:
    """Put an exported model in its place; return why there is none, empty if there is."""
    if answer["status"] == "stopped":
        wish.folder.tidy()
        return _NO_TIME
    try:
        if answer["status"] != "ok":
            raise GraftworkError(str(answer.get("message") or answer["status"]))
        answers = dict.fromkeys(rows.field.suite.task_names, wish.given.plan.name)
        wish.folder.take(context, wish.given, answer, rows.all(answers, averaged_tasks(wish.given)))
    except StorageError:
        raise
    except (GraftworkError, OSError) as error:
        wish.folder.tidy()
        return f"it could not be exported: {error}"
    return ""


def _seconds_left(context: RunContext[FitSettings], seconds_of_chosen: float) -> float | None:
    limit = context.settings.time_limit
    if limit is None:
        return None
    return max(0.0, LIMIT_SHARE * limit + seconds_of_chosen - context.run.seconds_used())


def _export_seconds(context: RunContext[FitSettings], chosen: Handover) -> float:
    """Return the seconds that the export of the chosen plan took; 0 if it is not known."""
    return float((context.run.result(chosen.job(context, "model.new").id) or {}).get("seconds", 0.0))


def _expected_bytes(field: JudgedField, given: Handover) -> int:
    return sum(_BYTES_OF_A_NUMBER * field.ledgers[job.plan.name].parameters_stored for job in given.trained)


def _too_large(size: int, used: int) -> str:
    """Return why a model of this size is not kept beside others; empty if it is."""
    if size > MOST_BYTES:
        return f"its {size / 2**20:.0f} MB are more than the {MOST_BYTES / 2**20:.0f} MB that other finalists may have"
    if used + size > MOST_BYTES_TOGETHER:
        return f"its {size / 2**20:.0f} MB and those of better plans exceed {MOST_BYTES_TOGETHER / 2**20:.0f} MB"
    return ""


def _gone(context: RunContext[FitSettings], given: Handover) -> str:
    """Return why a model cannot be made any more; a finished run has removed the trainings that it does not need."""
    missing = [job.id for job in given.trained if not (context.run.job(job.id) / "checkpoint.json").exists()]
    return "its trainings were removed when the run ended" if missing else ""


def _facts(wish: _Wish) -> dict[str, Any]:
    # The graph alone: what describes it holds dates, and results of equal runs are equal.
    size = (wish.folder.path / "model.onnx").stat().st_size
    return {**wish.given.facts(), "folder": f"{PLANS_FOLDER}/{wish.folder.name}", "onnx_bytes": size}

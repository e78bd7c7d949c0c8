"""After the race: verdict on the test rows, examples, the deployable model, the report; ``result.json`` is written last but
one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_json
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.fit.backbone_choice import backbone_rankings
from graftwork.workflows.fit.deploy import deploy_model, write_card
from graftwork.workflows.fit.examples import sample_predictions
from graftwork.workflows.fit.handover import handover
from graftwork.workflows.fit.inspection import inspect_choice
from graftwork.workflows.fit.judged_field import JudgedField, judged_field
from graftwork.workflows.fit.kept_plans import keep_finalists
from graftwork.workflows.fit.kept_rows import KeptRows, TaskOnKeptRows, averaged_tasks, decided_suite
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.fit.untested import not_tested, still_improving, would_gain
from graftwork.workflows.fit.warm_start import warm_start_of
from graftwork.workflows.runs.auto_groups import suggest_grouping
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.result_parts import result_head, timing, try_last_steps, try_step
from graftwork.workflows.runs.run_folder import clean_json
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["RESULT_FORMAT", "finish_run"]

RESULT_FORMAT = "graftwork-fit-1"


def finish_run(context: RunContext[FitSettings], outcome: RaceOutcome) -> dict[str, Any]:
    """Return the result, as ``result.json`` holds it.

    Raises:
        GraftworkError: If no plan reached its end, so that there is nothing to judge.
    """
    run = context.run
    if not outcome.finals:
        raise GraftworkError(
            f"No plan was finished within the time limit, so there is no verdict. Finished work is kept in {run.path}; go on "
            f"with: graftwork fit --resume {run.path} --time-limit 10m"
        )
    run.emit("phase", phase="verdict", jobs=0)
    field = judged_field(context, outcome)
    result = _collect(context, outcome, field, _judge(context, field))
    choice = result["verdict"]["choice"]
    warnings = result["verdict"]["warnings"]
    try_step(
        warnings,
        "Columns and training rows could not be looked into",
        lambda: result.update(inspect_choice(context, outcome, field, result["verdict"])),
    )
    context.pause_point()
    title, gaining = field.plans[choice].title, would_gain(context, outcome)
    given = handover(context, choice, title, field.weights(choice), outcome.finals, gaining)
    context.pause_point()
    if given.note:
        warnings.append(given.note)
    result["model"] = given.facts()
    rows = KeptRows(field)
    kept = rows.all(dict.fromkeys(field.suite.task_names, choice), averaged_tasks(given))
    said = {name: one.facts() for name, one in kept.items()}
    result["probabilities"] = {name: one for name, one in said.items() if one}
    shown, answers = decided_suite(field.suite, kept), {name: one.answers for name, one in kept.items()}
    result["examples"] = sample_predictions(shown, answers, seed=context.settings.seed)
    try_step(warnings, "The predictions could not be looked at", lambda: _look(context, shown, kept, result))
    run.emit("phase", phase="model", jobs=1)
    try_step(result["verdict"]["warnings"], "The model could not be exported", lambda: deploy_model(context, given, kept))
    others = result["kept_plans"]

    def keep() -> None:
        others.update(keep_finalists(context, outcome, field, result["verdict"], given, rows, gaining))

    try_step(result["verdict"]["warnings"], "Other finalists could not be kept", keep)
    context.pause_point()
    # Time that is left is left for nothing that would make models better.
    result["timing"] = timing(run) | (
        {} if context.settings.time_limit is None else {"converged": not gaining and not outcome.first_model}
    )
    result = clean_json(result)
    # Before report and card: if one of them fails, the numbers are safe.
    write_json(run.result_file, result)
    run.emit("phase", phase="report", jobs=0)

    def report() -> None:
        from graftwork.reporting.report import write_report

        write_report(result, run.path / "report.html")

    last_steps = {
        "The model card could not be written": lambda: write_card(run, result),
        "The report could not be written": report,
    }
    try_last_steps(run, result, last_steps)
    return result


def _look(context: RunContext[FitSettings], suite: Suite, kept: Mapping[str, TaskOnKeptRows], result: dict[str, Any]) -> None:
    """Add how the chosen plan predicts, by its first training (or the first repetition of the folds)."""
    from graftwork.evaluation.diagnostics import diagnose

    answers = {name: one.answers for name, one in kept.items()}
    # The thresholds of the suite's tasks were chosen on these very rows, and would flatter what is counted on them.
    decided = {name: found for name, one in kept.items() if (found := one.decisions) is not None}
    result["diagnostics"] = diagnose(suite, answers, decided=decided, seed=context.settings.seed)


def _judge(context: RunContext[FitSettings], field: JudgedField) -> dict[str, Any]:
    from graftwork.evaluation.choice.verdict import build_verdict

    settings = context.settings
    return build_verdict(
        field.suite,
        field.finals,
        controls=field.controls,
        affinity=field.affinity,
        ledgers=field.ledgers,
        plans=field.plans,
        limits={"max_params": settings.max_params, "max_latency": settings.max_latency, "max_memory": settings.max_memory},
        weights=settings.weights,
        tolerance=settings.tolerance,
        prefer=settings.prefer,
        seed=settings.seed,
    )


def _collect(
    context: RunContext[FitSettings], outcome: RaceOutcome, field: JudgedField, judged: Mapping[str, Any]
) -> dict[str, Any]:
    run = context.run
    estimates = run.state.get("estimates", {})
    entries = {}
    for name in field.finals:
        entry = dict(judged["plans"].get(name, {}))
        entry |= {"plan": field.plans[name].to_json(), "finalist": True, "ledger": field.ledgers[name].to_json()}
        entry["still_improving"] = still_improving(context, outcome, name)
        entries[name] = entry
    # Plans that the estimate left out are part of the race's story, with the reason in place of a score.
    excluded = [
        {"rung": 0, "plan": name, "seed": 0, "steps": 0, "status": "excluded", "message": estimate["reason"], "validation": {}}
        | {"score": None, "seconds": 0.0}
        for name, estimate in estimates.items()
        if not estimate["kept"]
    ]
    verdict = dict(judged["verdict"])
    verdict["warnings"] = [*verdict.get("warnings", ()), *outcome.warnings, *field.warnings, *context.schedule.notes]
    warm = warm_start_of(run)
    verdict["warnings"] += [] if warm is None else [warm.note]
    others = {key: value for key, value in judged.items() if key not in ("plans", "verdict", "pair_words")}
    return {
        **result_head(context, RESULT_FORMAT),
        "measured": field.measured,
        "estimate": [
            {
                key: estimate.get(key)
                for key in ("plan", "seconds_per_step", "seconds", "peak_rss_bytes", "parameters", "kept", "reason")
            }
            | _described(context.plans.get(name))
            for name, estimate in estimates.items()
        ],
        "race": [*excluded, *outcome.history],
        "attempts": outcome.attempts,
        "warm_start": None if warm is None else warm.facts(),
        "not_tested": not_tested(context, outcome),
        "backbone_rankings": backbone_rankings(context.run.state),
        "plans": entries,
        "affinity": None if outcome.affinity is None else {**outcome.affinity, "words": judged["pair_words"]},
        "gradients": outcome.gradients,
        "grouping": suggest_grouping(
            outcome.affinity,
            controls={row["task"]: row["label"] for row in judged["controls"]},
            separate_is_chosen=verdict.get("choice") == verdict.get("reference", ""),
        ),
        **others,
        "verdict": verdict,
        "examples": [],
        "kept_plans": {"kept": {}, "not_kept": {}},
        "diagnostics": {},
        "importance": {},
        "learning_curve": {},
        "probabilities": {},
        "timing": timing(run),
    }


def _described(plan: Plan | None) -> dict[str, Any]:
    """Return what a plan is, for those that left the race early: the result holds no more of them."""
    return {} if plan is None else {"role": plan.role, "group": plan.group, "title": plan.title}

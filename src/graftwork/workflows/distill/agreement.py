"""From trained students of data without labels to the result: how near the student came to each teacher, and nothing else, since
nobody knows what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_json
from graftwork.data.teacher_answers import read_answers
from graftwork.evaluation.choice.sentences import quote
from graftwork.workflows.compare.trainings import Trainings
from graftwork.workflows.distill.finish import (
    RESULT_FORMAT,
    alike_features,
    answers_of_seeds,
    complete_lineage,
    training_warnings,
)
from graftwork.workflows.distill.judged import Answers, agreement_of
from graftwork.workflows.distill.plans import DISTILLED
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.unlabelled import pseudo_answers
from graftwork.workflows.distill.ways import usable_ways
from graftwork.workflows.distill.words import size_sentence
from graftwork.workflows.fit.deploy import deploy_model
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.result_parts import job_ledger, result_head, timing, try_last_steps
from graftwork.workflows.runs.run_folder import clean_json

__all__ = ["agreement_sentences", "finish_unlabelled"]


def finish_unlabelled(
    context: RunContext[DistillSettings], trained: Trainings, teachers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare with the teachers on test rows, export the student, and write result and report.

    Raises:
        GraftworkError: If no training ended well, or the export failed.
    """
    run = context.run
    jobs = trained.finals.get(DISTILLED, {})
    if not jobs:
        reasons = [f"seed {item['seed']}: {item['message'] or item['status']}" for item in trained.failures]
        what = ("; ".join(reasons) or "the time limit came before").rstrip(".")
        raise GraftworkError(f"No training of the student ended well: {what}. See {run.path / 'log.jsonl'}.")
    run.emit("phase", phase="report", jobs=0)
    first = jobs[min(jobs)]
    alike = alike_features(context, {DISTILLED: first}, teachers)[DISTILLED]
    weights = {DISTILLED: dict.fromkeys(context.suite.task_names, 1.0)}
    deploy_model(context, Handover(plan=first.plan, trained=(first,), parts=0, weights=weights), {})
    complete_lineage(context, teachers)
    result = clean_json(_result(context, trained, jobs, teachers, alike))
    write_json(run.result_file, result)

    def report() -> None:
        from graftwork.reporting.distill_report import write_distill_report

        write_distill_report(result, run.path / "report.html")

    try_last_steps(run, result, {"The report could not be written": report})
    return dict(result)


def _result(
    context: RunContext[DistillSettings],
    trained: Trainings,
    jobs: Mapping[int, TrainJob],
    teachers: Sequence[Mapping[str, Any]],
    alike: Sequence[float | None],
) -> dict[str, Any]:
    run, settings = context.run, context.settings
    taught = answers_of_seeds(context, jobs)
    told = [
        {
            "name": teacher["teacher"],
            "weight": run.state["teacher_weights"][number],
            "ways": list(usable_ways(settings.ways, teacher)),
            **{key: teacher.get(key) for key in ("tasks", "features", "classes", "costs")},
            "relevance": {},
            "scores": {},
            "kept": {},
            "agreement": _agreement(context, number, teacher, taught),
            "alike": {"alone": None, "taught": alike[number]},
        }
        for number, teacher in enumerate(teachers)
    ]
    ledger = replace(
        job_ledger(run, jobs), wall_seconds=fmean(job_ledger(run, {seed: job}).wall_seconds for seed, job in jobs.items())
    )
    steps, seeds = max(context.schedule.horizons.values()), sorted(jobs)
    plan = {
        "plan": context.plans[DISTILLED].to_json(),
        "title": context.plans[DISTILLED].title,
        "group": context.plans[DISTILLED].group,
        "finalist": True,
        "test": {},
        "per_seed": {},
        "delta_m": None,
        "ledger": ledger.to_json(),
    }
    sentences = [
        f"There are no labels: the student learned from its teachers alone ({steps:,} steps, {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}), and nothing is said of how often it is right.",
        *agreement_sentences(clean_json(told)),
        size_sentence(settings.student, ledger.to_json(), told),
    ]
    return {
        **result_head(context, RESULT_FORMAT),
        "student": settings.student,
        "labels": "none",
        "teachers": told,
        "budget": {"steps": steps, "seeds": seeds, "unlabelled": len(context.suite)},
        "changes": {},
        "flips": {},
        "plans": {DISTILLED: plan},
        "failures": trained.failures,
        "verdict": {
            "choice": DISTILLED,
            "reference": "",
            "sentences": sentences,
            "warnings": training_warnings(context, trained, {DISTILLED: jobs}, teachers),
            "choice_strength": "",
        },
        "timing": timing(run),
    }


def _agreement(
    context: RunContext[DistillSettings], number: int, teacher: Mapping[str, Any], taught: Answers
) -> dict[str, dict[str, Any]]:
    """Return how near the student is to one teacher, by task that it answers."""
    suite, own = context.suite, read_answers(teacher["entry"])
    rows = suite.splits["test"]
    answers = {
        task: np.asarray(pseudo_answers(suite.task(task), by_teacher[str(number)], own, suite.splits["train"])(rows))
        for task, by_teacher in context.run.state["pseudo"].items()
        if str(number) in by_teacher
    }
    return agreement_of(suite, answers, taught)


def agreement_sentences(teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how near the student came to each teacher, task by task; of many tasks the least near one.

    Args:
        teachers: ``teachers`` of the result.
    """
    found = []
    for teacher in teachers:
        shares = {task: item for task, item in teacher["agreement"].items() if item["measure"] == "agreement"}
        apart = {task: item for task, item in teacher["agreement"].items() if item["measure"] != "agreement"}
        who = quote(str(teacher["name"]))
        if shares:
            task, item = min(shares.items(), key=lambda pair: float(pair[1]["taught"]["value"]))
            where = f" on `{task}`" + (f", the task of {len(shares)} on which it is least alike" if len(shares) > 1 else "")
            found.append(f"It says the same as {who} for {_percents(item['taught'])} of the test rows{where}.")
        if apart:
            task, item = max(apart.items(), key=lambda pair: float(pair[1]["taught"]["value"]))
            where = f" on `{task}`" + (f", the furthest of {len(apart)} tasks" if len(apart) > 1 else "")
            found.append(f"It is {float(item['taught']['value']):.2f} standard deviations from {who}{where}.")
    return found


def _percents(value: Mapping[str, Any]) -> str:
    middle = f"{100 * float(value['value']):.1f} %"
    if value.get("low") is None:
        return middle
    return f"{middle} (95 % interval {100 * float(value['low']):.1f} to {100 * float(value['high']):.1f})"

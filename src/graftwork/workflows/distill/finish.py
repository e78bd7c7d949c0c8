"""From finished trainings to what the user gets: the model, ``result.json`` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from graftwork.core.errors import GraftworkError
from graftwork.core.files import read_json, write_json
from graftwork.data.teacher_answers import read_answers
from graftwork.workflows.compare.trainings import Trainings
from graftwork.workflows.distill.judged import Answers, flips_of, kept_of, teacher_scores, teachers_answers
from graftwork.workflows.distill.plans import ALONE, DISTILLED
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.ways import usable_ways
from graftwork.workflows.distill.words import flip_sentences, gain_sentence, kept_sentences, size_sentence
from graftwork.workflows.fit.deploy import deploy_model
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import folder_name
from graftwork.workflows.runs.job_data import StoredPredictions, primary_scores
from graftwork.workflows.runs.jobs.kept import KeptJob
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.result_parts import final_runs, job_ledger, result_head, timing, try_last_steps
from graftwork.workflows.runs.run_folder import clean_json

__all__ = [
    "RESULT_FORMAT",
    "alike_features",
    "answers_of_seeds",
    "complete_lineage",
    "finish_distillation",
    "training_warnings",
]

RESULT_FORMAT = "graftwork-distill-1"


def finish_distillation(
    context: RunContext[DistillSettings], trained: Trainings, teachers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Judge, export the student that validation favours, and write result and report.

    Raises:
        GraftworkError: If one of the students has no finished training, or the export failed.
    """
    run, finals = context.run, trained.finals
    for name in (ALONE, DISTILLED):
        if not finals.get(name):
            reasons = [
                f"seed {item['seed']}: {item['message'] or item['status']}" for item in trained.failures if item["plan"] == name
            ]
            what = ("; ".join(reasons) or "the time limit came before").rstrip(".")
            raise GraftworkError(f"No training of `{name}` ended well: {what}. See {run.path / 'log.jsonl'}.")
    seeds = sorted(set(finals[ALONE]) & set(finals[DISTILLED]))
    if not seeds:
        raise GraftworkError("No seed was trained both alone and taught, so nothing can be compared. Give more time and resume.")
    run.emit("phase", phase="report", jobs=0)
    paired = {name: {seed: finals[name][seed] for seed in seeds} for name in (ALONE, DISTILLED)}
    alike = alike_features(context, {name: jobs[seeds[0]] for name, jobs in paired.items()}, teachers)
    favoured, margin = _favoured(context, paired)
    chosen = paired[favoured][seeds[0]]
    weights = {favoured: dict.fromkeys(context.suite.task_names, 1.0)}
    deploy_model(context, Handover(plan=chosen.plan, trained=(chosen,), parts=0, weights=weights), {})
    complete_lineage(context, teachers)
    result = clean_json(_result(context, trained, paired, teachers, alike, favoured, margin))
    write_json(run.result_file, result)

    def report() -> None:
        from graftwork.reporting.distill_report import write_distill_report

        write_distill_report(result, run.path / "report.html")

    try_last_steps(run, result, {"The report could not be written": report})
    return dict(result)


def alike_features(
    context: RunContext[DistillSettings], jobs: Mapping[str, TrainJob], teachers: Sequence[Mapping[str, Any]]
) -> dict[str, list[float | None]]:
    """Return how alike the features of each student and of each teacher are; None where that cannot be said."""
    entries = tuple(str(teacher["entry"]) for teacher in teachers)
    asked = {
        name: KeptJob(
            id=folder_name(f"kept-{name}"), phase="kept", plan=job.plan, facts=job.facts, seed=job.seed, rows=job.rows,
            max_steps=job.max_steps, source=job.id, answers=entries,
        )
        for name, job in jobs.items()
    }  # fmt: skip
    answers = context.run_jobs(list(asked.values()), past_deadline=True)
    context.pause_point()
    nothing: list[float | None] = [None] * len(entries)
    return {name: list(answers.get(job.id, {}).get("cka") or nothing) for name, job in asked.items()}


def _favoured(context: RunContext[DistillSettings], paired: Mapping[str, Mapping[int, TrainJob]]) -> tuple[str, float]:
    """Return the plan with the better mean validation scores, the taught one if they are equal, and its lead in percent."""
    from graftwork.evaluation.delta_m import relative_changes

    def means(name: str) -> dict[str, float]:
        scores = [
            primary_scores((context.run.result(job.id) or {}).get("validation", {}), context.suite)
            for job in paired[name].values()
        ]
        return {task: fmean(item[task] for item in scores) for task in context.suite.task_names}

    alone, taught = means(ALONE), means(DISTILLED)
    changes = [
        float(relative_changes(task, np.array(taught[task.name]), alone[task.name]))
        for task in context.suite.tasks
        if np.isfinite(alone[task.name]) and np.isfinite(taught[task.name])
    ]
    known = [change for change in changes if np.isfinite(change)]
    mean = fmean(known) if known else 0.0
    return (DISTILLED, mean) if mean >= 0 else (ALONE, -mean)


def complete_lineage(context: RunContext[DistillSettings], teachers: Sequence[Mapping[str, Any]]) -> None:
    """Add the teachers to the lineage of the model."""
    file = context.run.path / "model" / "lineage.json"
    lineage = read_json(file)
    bases, licences = dict(lineage.get("bases") or {}), dict(lineage.get("licences") or {})
    for teacher in teachers:
        name = f"teacher {teacher['teacher']}"
        # The entry is named by a hash over the teacher's weights and the rows.
        bases[name] = str(teacher["entry"]).rpartition("teacher-")[2]
        if teacher.get("licence"):
            licences[name] = str(teacher["licence"])
    write_json(file, {**lineage, "bases": bases, "licences": licences})


def _result(
    context: RunContext[DistillSettings],
    trained: Trainings,
    paired: Mapping[str, Mapping[int, TrainJob]],
    teachers: Sequence[Mapping[str, Any]],
    alike: Mapping[str, Sequence[float | None]],
    favoured: str,
    margin: float,
) -> dict[str, Any]:
    from graftwork.evaluation.choice.scores import ScoreBank

    run, suite, settings = context.run, context.suite, context.settings
    bank = ScoreBank(suite, final_runs(context, paired), seed=settings.seed)
    alone, taught = (answers_of_seeds(context, paired[name]) for name in (ALONE, DISTILLED))
    told = []
    for number, teacher in enumerate(teachers):
        answers = teachers_answers(read_answers(teacher["entry"]), suite)
        told.append(
            {
                "name": teacher["teacher"],
                "weight": run.state["teacher_weights"][number],
                "ways": list(usable_ways(settings.ways, teacher)),
                **{key: teacher.get(key) for key in ("tasks", "features", "classes", "relevance", "costs")},
                "scores": teacher_scores(answers, suite),
                "kept": kept_of(suite, answers, alone, taught),
                "alike": {"alone": alike[ALONE][number], "taught": alike[DISTILLED][number]},
            }
        )
    delta = bank.delta_m(DISTILLED, ALONE)
    changes = {task: change.interval().to_json() for task, change in bank.changes(DISTILLED, ALONE).items()}
    overall = None if delta is None else delta.interval().to_json()
    ledgers = {
        name: replace(
            job_ledger(run, jobs), wall_seconds=fmean(job_ledger(run, {seed: job}).wall_seconds for seed, job in jobs.items())
        )
        for name, jobs in paired.items()
    }
    flips, steps, seeds = flips_of(suite, alone, taught), max(context.schedule.horizons.values()), sorted(paired[ALONE])
    plans = {
        name: {
            "plan": context.plans[name].to_json(),
            "title": context.plans[name].title,
            "group": context.plans[name].group,
            "finalist": True,
            "test": {
                task: {metric: interval.to_json() for metric, interval in values.items()}
                for task, values in bank.intervals(name).items()
            },
            "per_seed": bank.per_seed(name),
            "delta_m": overall if name == DISTILLED else None,
            "ledger": ledgers[name].to_json(),
        }
        for name in (DISTILLED, ALONE)
    }
    sentences = [
        gain_sentence(
            clean_json(overall), tasks=len(changes), seeds=len(seeds), steps=steps, unlabelled=int(run.state.get("unlabelled", 0))
        ),
        *kept_sentences(clean_json(told)),
        *flip_sentences(flips),
        size_sentence(settings.student, ledgers[favoured].to_json(), told),
        _handed_over(favoured, margin),
    ]
    return {
        **result_head(context, RESULT_FORMAT),
        "student": settings.student,
        "teachers": told,
        "budget": {"steps": steps, "seeds": seeds, "unlabelled": run.state.get("unlabelled", 0)},
        "changes": changes,
        "flips": flips,
        "plans": plans,
        "failures": trained.failures,
        "verdict": {
            "choice": favoured,
            "reference": ALONE,
            "sentences": sentences,
            "warnings": training_warnings(context, trained, paired, teachers),
            "choice_strength": "",
        },
        "timing": timing(run),
    }


def answers_of_seeds(context: RunContext[DistillSettings], jobs: Mapping[int, TrainJob]) -> Answers:
    """Return what the trainings of a plan answer for the test rows, by task, in the order of the seeds."""
    found: dict[str, list[Any]] = {name: [] for name in context.suite.task_names}
    for seed in sorted(jobs):
        stored = StoredPredictions(context.run.job(jobs[seed].id) / "predictions.safetensors", context.suite, "test")
        for name, values in found.items():
            values.append(stored[name])
    return found


def _handed_over(favoured: str, margin: float) -> str:
    if favoured == DISTILLED:
        return f"`model/` is the taught student: its validation scores are ahead by {margin:.1f} %."
    return (
        f"`model/` is the student alone: its validation scores are ahead by {margin:.1f} %. Try another way (--way), less of it "
        "(--strength), or other teachers."
    )


def training_warnings(
    context: RunContext[DistillSettings],
    trained: Trainings,
    paired: Mapping[str, Mapping[int, TrainJob]],
    teachers: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return what limits the result: leaks, notes of teachers, trainings that did not end well or were not long enough."""
    run = context.run
    warnings = [*map(str, run.state.get("leaks", ())), *(str(note) for teacher in teachers for note in teacher.get("notes", ()))]
    warnings += [
        f"Seed {item['seed']} of `{item['plan']}` did not end well ({item['message'] or item['status']}), so it is left out."
        for item in trained.failures
    ]
    results = {name: [run.result(job.id) or {} for job in jobs.values()] for name, jobs in paired.items()}
    if any(item.get("cut") for items in results.values() for item in items):
        warnings.append("The time limit cut a training, so both students need not have made the same steps.")
    missing = len(context.schedule.seeds) - min(len(jobs) for jobs in paired.values())
    if missing:
        both = " both alone and taught" if len(paired) > 1 else ""
        warnings.append(f"{missing} of {len(context.schedule.seeds)} seeds were not trained{both}.")
    improving = [name for name, items in results.items() if any(item.get("still_improving") for item in items)]
    if improving:
        listed = " and ".join(f"`{name}`" for name in improving)
        warnings.append(f"Validation scores of {listed} were still improving at the end; more steps will probably help.")
    return warnings

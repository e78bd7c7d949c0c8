"""What finished finals answered, as the verdict and the weights of ensembles read it: on test rows and on validation rows.

With one split, every seed is a run of its own on the same test rows. With folds, the trainings of one repetition are one run:
each row is answered by the model that did not learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Scores
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.metrics import score_task
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.job_data import read_predictions
from graftwork.workflows.runs.result_parts import final_run

__all__ = ["Answers", "Folds", "answers_of", "fold_scores", "judged_folds", "judged_suite"]

Array = NDArray[Any]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """Which trainings of a cross-validation are judged."""

    number: int
    """Folds of one repetition."""
    judged: tuple[int, ...]
    """Folds that all plans finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """One run of a plan, with what it answered on the rows that select."""

    final: FinalRun
    val_rows: Rows
    """Rows of the suite."""
    val: Mapping[str, Array]
    """``{task: prediction}`` for them."""
    val_parts: Rows | None = None
    """In a cross-validation, the fold whose training did not see the row, ``[N]``; None without folds."""


def fold_scores(suite: Suite, answers: Mapping[str, Array], rows: Rows, parts: Rows | None) -> dict[int, Scores] | None:
    """Return ``{training: {task: {metric: value}}}`` of answers on validation rows; None without folds.

    Args:
        suite: The suite.
        answers: ``{task: prediction}``.
        rows: Rows of the suite, ``[N]``.
        parts: Which training answered each, ``[N]``, or None.
    """
    if parts is None:
        return None
    found: dict[int, Scores] = {}
    for part in np.unique(parts):
        own = parts == part
        found[int(part)] = {
            task.name: score_task(task, np.asarray(suite.targets[task.name][rows[own]]), answers[task.name][own])
            for task in suite.tasks
            if task.name in answers
        }
    return found


def judged_folds(context: RunContext[Any], finals: Mapping[str, Mapping[int, Job]]) -> Folds | None:
    """Return the folds on which plans are compared; None without folds.

    Those of the plan that finished the most, but no more than the reference, if that finished two: without it, gains would have
    nothing to be measured against.

    Args:
        context: The run.
        finals: ``{plan: {number of the training: job}}``.
    """
    folds = context.maker.facts.folds
    if not folds:
        return None
    done = {name: {number for number in jobs if number < folds} for name, jobs in finals.items()}
    reference = [found for name, found in done.items() if context.plans[name].role == "reference" and len(found) > 1]
    judged = max(reference or done.values(), key=len)
    return Folds(number=folds, judged=tuple(sorted(judged)))


def judged_suite(suite: Suite, folds: Folds | None) -> Suite:
    """Return the suite whose test rows are those that the judged trainings answered.

    ``train`` and ``val`` are those of the first fold: how many rows trainings exchange is what the tests over folds need.
    """
    if folds is None:
        return suite
    from graftwork.data.folds import fold_suite, fold_test_rows

    rows = fold_test_rows(suite, folds.number, folds.judged)
    first = fold_suite(suite, folds.number, 0)
    return suite.with_splits({**first.splits, "test": rows})


def answers_of(context: RunContext[Any], jobs: Mapping[int, Job], suite: Suite, folds: Folds | None) -> list[Answers]:
    """Return the runs of one plan.

    Args:
        context: The run.
        jobs: Finished trainings by seed, or by their number in the cross-validation.
        suite: From :func:`judged_suite`.
        folds: From :func:`judged_folds`.

    Returns:
        With folds, one run for each repetition that is whole; none if the plan did not finish all judged folds.
    """
    if folds is None:
        return [_of_seed(context, jobs[seed]) for seed in sorted(jobs)]
    found = []
    for repetition in range(1 + max(jobs, default=0) // folds.number):
        numbers = [repetition * folds.number + fold for fold in (folds.judged if not repetition else range(folds.number))]
        if repetition and len(folds.judged) < folds.number:
            break
        if all(number in jobs for number in numbers):
            found.append(_of_folds(context, [jobs[number] for number in numbers], repetition, suite))
    return found


def _of_seed(context: RunContext[Any], job: Job) -> Answers:
    predictions = read_predictions(context.run.job(job.id) / "predictions.safetensors", context.suite)
    rows = job.suite(context.run).splits["val"]
    return Answers(final=final_run(context, job), val_rows=rows, val=predictions.get("val", {}))


def _of_folds(context: RunContext[Any], jobs: Sequence[Job], repetition: int, suite: Suite) -> Answers:
    parts = [read_predictions(context.run.job(job.id) / "predictions.safetensors", context.suite) for job in jobs]
    divided = [job.suite(context.run).splits for job in jobs]
    test_rows, fold = (
        np.concatenate(column)
        for column in zip(
            *((splits["test"], np.full(len(splits["test"]), number)) for number, splits in enumerate(divided)), strict=True
        )
    )
    order = np.argsort(test_rows, kind="stable")
    place = np.searchsorted(test_rows[order], suite.splits["test"])
    chosen = order[place]
    test = {task: np.concatenate([part["test"][task] for part in parts])[chosen] for task in parts[0]["test"]}
    val_rows = np.concatenate([splits["val"] for splits in divided])
    val_parts = np.concatenate([np.full(len(splits["val"]), number) for number, splits in enumerate(divided)])
    stored = parts[0].get("val", {})  # controls store none: they select nothing
    val = {task: np.concatenate([part["val"][task] for part in parts]) for task in stored}
    validation = {
        task.name: score_task(task, np.asarray(suite.targets[task.name][val_rows]), val[task.name])
        for task in suite.tasks
        if task.name in val
    }
    final = FinalRun(
        plan_name=jobs[0].plan.name,
        seed=repetition,
        predictions=test,
        validation=validation,
        validation_parts=fold_scores(suite, val, val_rows, val_parts) if val else None,
        parts=fold[chosen],
    )
    return Answers(final=final, val_rows=val_rows, val=val, val_parts=val_parts)

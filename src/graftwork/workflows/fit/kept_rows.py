"""What is learned for the handed-over model from rows that its plan did not learn from: errors for intervals around numbers,
corrections of probabilities, thresholds that serve the metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.conformal import has_errors, kept_errors
from graftwork.evaluation.correction import Correction
from graftwork.evaluation.correction_fit import FittedCorrection, kept_correction
from graftwork.evaluation.threshold_choice import FittedThresholds, kept_thresholds
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.class_weights import weights_of
from graftwork.tasks.thresholds import with_thresholds
from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.fit.judged_field import JudgedField

__all__ = ["KeptRows", "TaskOnKeptRows", "averaged_tasks", "decided_suite"]

_EXAMPLES = 256
_MOST_ENTRIES = 20_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOnKeptRows:
    """What the kept-back rows say of one task under the plan that answers it."""

    task: TaskSpec
    errors: list[list[float]] | None
    """Absolute errors of each value; None for other tasks than numbers."""
    fitted: FittedCorrection | None
    chosen: FittedThresholds | None
    answers: Array
    """Of the first run, ``[N, ...]``: each row corrected by what was fitted on others."""
    examples: Array
    """Some of its answers before that."""
    averaged: bool = False
    """Whether each row was answered by two models together."""

    @property
    def correction(self) -> Correction | None:
        """What is applied to the answers of the handed-over model; None if nothing is."""
        return self.fitted.correction if self.fitted else None

    @property
    def decisions(self) -> Array | None:
        """What is decided in the rows of :attr:`answers`, each row by thresholds that others chose; None without thresholds."""
        found = self.chosen.decided if self.chosen else None
        return None if found is None else found[: len(self.answers)]

    @property
    def decided(self) -> TaskSpec:
        """The task with its thresholds."""
        return with_thresholds(self.task, self.chosen.thresholds if self.chosen else None)

    def facts(self) -> dict[str, Any] | None:
        """Return what ``result.json`` says; None if there is nothing to say."""
        found: dict[str, Any] = {}
        if self.fitted is not None:
            before, after = ({"log_loss": self.fitted.log_loss[place], "brier": self.fitted.brier[place]} for place in (0, 1))
            found |= {"rows": self.fitted.rows, "before": before, "after": after, "why_not": self.fitted.why_not}
            found["correction"] = None if self.correction is None else self.correction.to_json()
            found["averaged"] = self.averaged
            found["class_weights"] = weights_of(self.task) is not None
        if self.chosen is not None:
            names = dict(zip(("before", "after"), self.chosen.score, strict=True))
            found["thresholds"] = {"values": list(self.chosen.thresholds), "metric": self.chosen.metric, **names}
            found["thresholds"] |= {"why_not": self.chosen.why_not, "of_classes": self.chosen.of_classes}
        return found or None


class KeptRows:
    """What kept-back rows say of plans, task by task; each is worked out once.

    Args:
        field: Everybody who was compared, with answers for the judged rows.
    """

    def __init__(self, field: JudgedField) -> None:
        self.field = field
        self._known: dict[tuple[str, str, bool], TaskOnKeptRows] = {}

    def of(self, task: TaskSpec, plan: str, *, averaged: bool = False) -> TaskOnKeptRows:
        """Return what the judged rows say of a task under a plan.

        Args:
            task: The task.
            plan: The plan that answers it.
            averaged: Whether the average of several models of the plan is handed over. Averages are less sure than single models, so
                that, of a cross-validation, two models answer each row together: the one that was judged by it, and the one whose
                training stopped by it.
        """
        key = (task.name, plan, averaged)
        if key not in self._known:
            self._known[key] = self._look(task, plan, averaged)
        return self._known[key]

    def all(self, plans: Mapping[str, str], averaged: Collection[str] = ()) -> dict[str, TaskOnKeptRows]:
        """Return it for all tasks.

        Args:
            plans: ``{task: plan that answers it}``; tasks that it did not answer are left out.
            averaged: Tasks for which the average of several models is handed over.
        """
        return {
            task.name: self.of(task, plans[task.name], averaged=task.name in averaged)
            for task in self.field.suite.tasks
            if task.name in self.field.finals[plans[task.name]][0].predictions
        }

    def _look(self, task: TaskSpec, plan: str, averaged: bool) -> TaskOnKeptRows:
        suite = self.field.suite
        rows = suite.splits["test"]
        target = np.asarray(suite.targets[task.name][rows])
        given = self.field.finals[plan][0].predictions[task.name]
        if has_errors(task):
            # Rounded by the network, or without the origin of large numbers: errors are differences, so that both sides lack it.
            errors = kept_errors(task, target, given)
            return TaskOnKeptRows(task=task, errors=errors, fitted=None, chosen=None, answers=given, examples=given[:0])
        if not task_kind(task).label_columns(task, target[:1]):
            return TaskOnKeptRows(task=task, errors=None, fitted=None, chosen=None, answers=given, examples=given[:0])
        answers = self.field.answers[plan]
        # Of very large answers one training says enough.
        answers = answers[:1] if np.size(given) > _MOST_ENTRIES else answers
        averaged = averaged and all(one.val_parts is not None and task.name in one.val for one in answers)
        # Trainings with other seeds answered the same rows: they are other answers, not other rows.
        runs = [
            _with_second(one, task.name, rows) if averaged else np.asarray(one.final.predictions[task.name]) for one in answers
        ]
        unit = np.arange(len(rows)) if suite.groups is None else np.asarray(suite.groups[rows])
        many, units, truth = np.concatenate(runs), np.tile(unit, len(runs)), np.concatenate([target] * len(runs))
        fitted = kept_correction(task, truth, many, units, weights_of(task))
        many = fitted.predictions if fitted is not None else many
        chosen = kept_thresholds(task, truth, many, units)
        return TaskOnKeptRows(
            task=task,
            errors=None,
            fitted=fitted,
            chosen=chosen,
            answers=many[: len(rows)],
            examples=runs[0][:_EXAMPLES],
            averaged=averaged,
        )


def _with_second(answers: Answers, task: str, rows: NDArray[np.int64]) -> Array:
    """Return the answers for judged rows (sorted), averaged with those for the same rows among validation rows."""
    first = np.asarray(answers.final.predictions[task])
    total, number = first.astype(np.float64), np.ones((len(first), *[1] * (first.ndim - 1)))
    place = np.minimum(np.searchsorted(rows, answers.val_rows), len(rows) - 1)
    again = rows[place] == answers.val_rows
    np.add.at(total, place[again], np.asarray(answers.val[task], dtype=np.float64)[again])
    np.add.at(number, place[again], 1.0)
    return (total / number).astype(first.dtype)


def decided_suite(suite: Suite, kept: Mapping[str, TaskOnKeptRows]) -> Suite:
    """Return the suite whose tasks have the thresholds that were chosen."""
    return replace(suite, tasks=tuple(kept[task.name].decided if task.name in kept else task for task in suite.tasks))


def averaged_tasks(given: Handover) -> set[str]:
    """Return the tasks for which a plan is the average of several models in what is handed over."""
    number: dict[str, int] = {}
    for job in given.trained:
        number[job.plan.name] = number.get(job.plan.name, 0) + 1
    return {
        task
        for plan, weights in given.weights.items()
        if number.get(plan, 0) > 1
        for task, weight in weights.items()
        if weight > 0
    }

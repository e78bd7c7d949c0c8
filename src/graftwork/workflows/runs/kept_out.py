"""Finished trainings that answer rows which none of them learned from: as they are, and with columns shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import CheckpointError
from graftwork.core.seeds import Seeds
from graftwork.data.input_columns import InputColumn, input_columns
from graftwork.data.suite import Suite, labelled_rows
from graftwork.evaluation.importance import harm_of, shuffled_answers
from graftwork.workflows.runs.job_checkpoints import load_job_checkpoint
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["KeptOut", "Trained"]

Array = NDArray[Any]
Answers = dict[str, Array]
Trained = tuple[TrainJob, Mapping[str, float]]
"""A finished training, and the weights of its answers, ``{task: weight}``."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One training, with the rows as it reads them."""

    learner: Learner
    weights: Mapping[str, float]
    inputs: Mapping[str, Array]
    columns: Mapping[str, InputColumn]

    def predict(self, inputs: Mapping[str, Array]) -> Answers:
        """Return the answers that it has a part in, times its weights."""
        names = [name for name in self.learner.context.suite.task_names if self.weights.get(name, 0.0) > 0]
        rows = np.arange(len(next(iter(inputs.values()))))
        found = self.learner.predict(rows, names, inputs=inputs) if names else {}
        return {name: np.float64(self.weights[name]) * values for name, values in found.items()}


@dataclass(frozen=True, slots=True)
class KeptOut:
    """Trainings of one division of the rows."""

    suite: Suite
    rows: NDArray[np.int64]
    """Rows of the suite that are answered."""
    base: Mapping[str, Array]
    """Answers with nothing shuffled, ``{task: [N, ...]}``."""
    _members: Sequence[_Member]

    @classmethod
    def load(cls, run: RunFolder, members: Sequence[Trained], most_rows: int) -> KeptOut:
        """Load trainings that have the same test rows, and let them answer some of these.

        Args:
            run: The run folder.
            members: The trainings.
            most_rows: Most rows, drawn at random from those with a label.

        Raises:
            CheckpointError: If a checkpoint is gone or damaged.
        """
        suite = members[0][0].suite(run)
        known = np.zeros(len(suite), dtype=bool)
        for task in suite.tasks:
            known |= labelled_rows(np.asarray(suite.targets[task.name]))
        test = np.asarray(suite.splits["test"], dtype=np.int64)
        test = test[known[test]]
        rows = Seeds(members[0][0].facts.root_seed).numpy("importance").permutation(test)[:most_rows]
        loaded = []
        for job, weights in members:
            learner = job.learner(job.suite(run))
            if not load_job_checkpoint(learner, run.job(job.id)):
                raise CheckpointError(f"The checkpoint in {run.job(job.id)} is missing or damaged. Run again in another folder.")
            own = _read_suite(learner)
            columns = {column.name: column for column in input_columns(own.input_specs, own.inputs)}
            loaded.append(
                _Member(learner, weights, {name: np.asarray(array[rows]) for name, array in own.inputs.items()}, columns)
            )
        fold = cls(suite, rows, {}, loaded)
        return replace(fold, base=fold.answers())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._members[0].columns)

    @property
    def is_large(self) -> bool:
        """Whether a row holds a picture, a text or a series."""
        return any(places is None for column in self._members[0].columns.values() for places in column.places.values())

    def answers(self) -> Answers:
        """Return the answers with nothing shuffled."""
        return _sum([member.predict(member.inputs) for member in self._members])

    def first_rows(self, number: int) -> KeptOut:
        """Return the same for fewer rows, the first ones."""
        members = [replace(one, inputs={name: array[:number] for name, array in one.inputs.items()}) for one in self._members]
        base = {name: values[:number] for name, values in self.base.items()}
        return replace(self, rows=self.rows[:number], base=base, _members=members)

    def shuffled(self, blocks: Sequence[Sequence[str]], repeats: Sequence[int]) -> Iterator[tuple[int, Answers]]:
        """Yield ``(block, answers)`` with the columns of each block shuffled, all blocks of a repeat before those of the next."""
        streams = [
            shuffled_answers(
                member.predict,
                member.inputs,
                [[member.columns[name] for name in block] for block in blocks],
                repeats=repeats,
            )
            for member in self._members
        ]
        for parts in zip(*streams, strict=True):
            yield parts[0][0], _sum([answers for _, _, answers in parts])

    def harm(self, blocks: Sequence[Sequence[str]]) -> list[float]:
        """Return how much worse the answers get with the columns of each block shuffled, relative to the scores."""
        targets = {task.name: np.asarray(self.suite.targets[task.name][self.rows]) for task in self.suite.tasks}
        return [harm_of(self.suite.tasks, targets, self.base, answers) for _, answers in self.shuffled(blocks, [0])]


def _read_suite(learner: Learner) -> Suite:
    """Return the suite whose inputs the learner reads: pretrained backbones read texts in tokens of their own."""
    own = getattr(learner, "suite", None)
    if isinstance(own, Suite):
        return own
    context = learner.context
    if context.plan.source != "pretrained":
        return context.suite
    from graftwork.training.assembly import prepare_inputs

    return prepare_inputs(context.suite, context.plan, context.backbone)


def _sum(parts: Sequence[Mapping[str, Array]]) -> Answers:
    total: dict[str, Any] = {}
    for part in parts:
        for name, values in part.items():
            total[name] = total[name] + values if name in total else values
    return {name: np.asarray(values, dtype=np.float32) for name, values in total.items()}

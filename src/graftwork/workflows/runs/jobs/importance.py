"""How important each column is for what a plan predicts: its finished trainings answer rows that they did not learn from, again with one
column after the other shuffled."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import FileFormatError
from graftwork.workflows.runs.control import JobControl, PauseTraining
from graftwork.workflows.runs.job import Job, check_folder_name
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.workflows.runs.kept_out import KeptOut, Trained

__all__ = ["JOB", "ImportanceJob"]

Array = NDArray[Any]
MOST_ROWS, LEAST_ROWS = 1_000, 60
MOST_REPEATS = 5
MOST_COLUMNS = 200
"""Columns that are shuffled each by itself; of more, those that seem to matter most are."""
SCREENING = 3
"""Blocks of columns that are shuffled for each column that is chosen of too many."""
MOST_NUMBERS = 20_000_000
"""Numbers of all answers that are held."""
FIXED_EFFORT, FIXED_EFFORT_OF_LARGE = 6_000, 600
"""Rows that are predicted where no time limit says how many: of tables, and, each column once, where a row holds a picture, a text or a
series."""
USED = 0.6
"""Share of the time for shuffled rows: intervals and what takes longer than expected need the rest."""
MOST_ENTRIES = 3_000
"""Columns of all tasks together in the result."""
_LEAST_ENTRIES, _MOST_ENTRIES = 10, 100


class _TooLateError(Exception):
    """The time is up before every column was shuffled once."""


@dataclass(frozen=True, slots=True)
class _Effort:
    """What there is time for."""

    folds: int
    rows: int
    """Rows of each fold."""
    columns: int
    repeats: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceJob(Job):
    """Shuffles columns for a plan, or for an average of several plans."""

    kind: ClassVar[str] = "importance"

    members: tuple[Mapping[str, Any], ...]
    """Finished trainings, objects with ``job`` (:meth:`.TrainJob.to_json`) and ``weights``, ``{task: weight}``. Those of one seed answer
    the same rows, and their answers are averaged; those of other seeds are folds of a cross-validation."""
    seconds: float = 0.0
    """Seconds that it may take; 0: a fixed effort, so that it repeats exactly."""

    def __post_init__(self) -> None:
        Job.__post_init__(self)
        for member in self.members:
            job = member.get("job") if isinstance(member, Mapping) else None
            if not isinstance(job, Mapping) or not isinstance(member.get("weights"), Mapping):
                raise FileFormatError(f"A member is an object with job and weights; got {member!r:.200}.")
            check_folder_name("member", str(job.get("id")))

    @property
    def reads(self) -> tuple[str, ...]:
        """Its own folder and those of the trainings."""
        return f"jobs/{self.id}", *(f"jobs/{member['job']['id']}" for member in self.members)

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Measure.

        Returns:
            ``importance``: ``rows``, ``repeats``, ``num_columns``, ``measured`` (columns that were shuffled each by itself) and ``tasks``,
            ``{task: ...}`` as :func:`graftwork.evaluation.importance.task_importance` returns them; ``{}`` with a ``message`` if there
            was no time.

        Raises:
            CheckpointError: If a checkpoint is gone or damaged.
        """
        end = time.monotonic() + self.seconds if self.seconds else float("inf")
        try:
            return {"status": "ok", "importance": self._measure(run, control, end)}
        except (_TooLateError, PauseTraining):
            if control.stop == "keep":
                return {"status": "stopped"}
            return {"status": "ok", "importance": {}, "message": "the time did not suffice to shuffle every column"}

    def _measure(self, run: RunFolder, control: JobControl, end: float) -> dict[str, Any]:
        from graftwork.evaluation.importance import screened_columns
        from graftwork.workflows.runs.kept_out import KeptOut

        members = self._trained()
        started = time.monotonic()
        first = KeptOut.load(run, members[0], max(1, MOST_ROWS // len(members)))
        loaded = time.monotonic()
        first.answers()
        per_row = (time.monotonic() - loaded) / len(first.rows)
        effort = self._effort(first, len(members), loaded - started, per_row, end - time.monotonic())
        first = first.first_rows(effort.rows)
        chosen = screened_columns(first.columns, first.harm, effort.columns, effort=SCREENING * effort.columns)
        blocks = [[name] for name in chosen]
        folds = []
        for number in range(effort.folds):
            fold = KeptOut.load(run, members[number], effort.rows) if number else first
            found: dict[str, list[Mapping[str, Array]]] = {name: [] for name in chosen}
            for done, (block, answers) in enumerate(fold.shuffled(blocks, range(effort.repeats)), 1):
                found[chosen[block]].append(answers)
                # No checkpoint is due: it leaves here only if it is told to stop.
                control.begin_slice()
                control.progress(done)
                # A whole repeat of the only fold is enough; half of anything is not.
                if time.monotonic() > end:
                    if effort.folds > 1 or done < len(chosen):
                        raise _TooLateError
                    if done % len(chosen) == 0:
                        break
            folds.append((fold, found))
        facts = {"num_columns": len(first.columns), "measured": len(chosen)}
        return facts | self._summary(folds, end + (1.0 - USED) * self.seconds)

    def _trained(self) -> list[list[Trained]]:
        """Return the trainings by fold."""
        folds: dict[int, list[Trained]] = {}
        for member in self.members:
            job = replace(TrainJob.from_json(member["job"]), facts=self.facts)
            folds.setdefault(job.seed, []).append((job, member["weights"]))
        return list(folds.values())

    def _summary(self, folds: list[tuple[KeptOut, dict[str, list[Mapping[str, Array]]]]], end: float) -> dict[str, Any]:
        """Return the importance for each task, over the rows of all folds."""
        from graftwork.evaluation.importance import task_importance

        suite = folds[0][0].suite
        rows = np.concatenate([fold.rows for fold, _ in folds])
        names = list(folds[0][1])
        repeats = min(len(found[name]) for _, found in folds for name in names)
        most = int(np.clip(MOST_ENTRIES // len(suite.tasks), _LEAST_ENTRIES, _MOST_ENTRIES))
        tasks = {}
        for task in suite.tasks:
            shuffled = {
                name: [np.concatenate([found[name][repeat][task.name] for _, found in folds]) for repeat in range(repeats)]
                for name in names
            }
            one = task_importance(
                task,
                np.asarray(suite.targets[task.name][rows]),
                np.concatenate([fold.base[task.name] for fold, _ in folds]),
                shuffled,
                groups=None if suite.groups is None else suite.groups[rows],
                seed=self.facts.root_seed,
                is_late=lambda: time.monotonic() > end,
            )
            if one is not None:
                tasks[task.name] = {**one, "columns": one["columns"][:most]}
        return {"rows": len(rows), "repeats": repeats, "tasks": tasks}

    def _effort(self, first: KeptOut, folds: int, loading: float, per_row: float, left: float) -> _Effort:
        """Return how much there is time for: columns, then rows of all folds, then repeats."""
        columns = min(len(first.columns), MOST_COLUMNS)
        fixed = min(FIXED_EFFORT_OF_LARGE, LEAST_ROWS * columns) if first.is_large else FIXED_EFFORT

        def affordable(number: int) -> float:
            """Return the rows that can be predicted with so many folds."""
            return USED * (left - (number - 1) * loading) / max(per_row, 1e-9) if math.isfinite(left) else fixed

        # Few rows say little, so that every fold is wanted before a second repeat.
        whole = columns * len(first.rows)
        number = next((one for one in range(folds, 1, -1) if affordable(one) >= one * whole), 1)
        budget = affordable(number)
        rows = int(np.clip(budget / (number * columns), min(LEAST_ROWS, len(first.rows)), len(first.rows)))
        fitting = int(budget / (number * rows))
        if fitting < len(first.columns):
            # Blocks of columns are shuffled before, to find those that matter.
            columns = min(columns, fitting // (1 + SCREENING))
        if columns < 1:
            raise _TooLateError
        if columns < len(first.columns):
            return _Effort(folds=number, rows=rows, columns=columns, repeats=1)
        held = number * rows * columns * sum(math.prod(answers.shape[1:]) for answers in first.base.values())
        repeats = int(np.clip(min(budget / (number * rows * columns), MOST_NUMBERS / held), 1, MOST_REPEATS))
        return _Effort(folds=number, rows=rows, columns=columns, repeats=repeats)


JOB = ImportanceJob

"""What does a teacher say of the rows? Asked once, part by part, and kept in the cache; with how alike its features and the
labels are, and what it costs to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite, labelled_rows
from graftwork.data.teacher_answers import TeacherAnswers, read_answers, store_answers
from graftwork.workflows.runs.control import JobControl, PauseTraining
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "TeachJob", "answers_key", "relevance_of"]

_RELEVANCE_ROWS = 600
"""Labelled rows on which relevance is measured: pairs of them are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeachJob(Job):
    """Asks one teacher."""

    kind: ClassVar[str] = "teach"

    teacher: str
    """As the user named it."""
    taps: tuple[str, ...] = ()
    """Modules of the teacher whose outputs are kept as well."""

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Ask for all rows; what is in the cache is not asked again.

        Raises:
            GraftworkError: If the teacher cannot be loaded, or cannot read the rows.
        """
        from graftwork.workflows.teachers.asking import open_teacher

        suite = self.suite(run)
        teacher = open_teacher(self.teacher, suite, self.taps, seed=self.facts.root_seed, device=self.facts.device)

        def progress(rows: int) -> None:
            control.report({"type": "progress", "step": rows})
            if control.stop is not None:
                raise PauseTraining

        try:
            entry = store_answers(
                Path(self.facts.cache) / "teachers", answers_key(teacher.key, suite), teacher.name, len(suite), teacher.ask,
                on_progress=progress,
            )  # fmt: skip
        except PauseTraining:
            return {"status": "stopped"}
        if teacher.network is not None:
            # Costs are measured on the CPU, as those of all models.
            teacher.network.to("cpu")
        answers = read_answers(entry)
        return {
            "status": "ok",
            "teacher": self.teacher,
            "entry": str(entry),
            "tasks": list(answers.outputs),
            "features": None if answers.features is None else int(answers.features.shape[1]),
            "classes": None if answers.classes is None else int(answers.classes.shape[1]),
            "maps": list(answers.maps),
            "taps": list(answers.vectors),
            "network": teacher.beside,
            "blocks": _blocks(teacher),
            "relevance": relevance_of(answers, suite, self.facts.root_seed),
            "notes": list(teacher.notes),
            "licence": teacher.licence,
            "costs": _costs(teacher),
        }


def answers_key(teacher: str, suite: Suite) -> str:
    """Return the key of a teacher's answers: its own, and a short hash of the tasks, as answers are laid out as these ask for them."""
    import hashlib
    import json

    return teacher + hashlib.sha256(json.dumps([task.to_json() for task in suite.tasks], sort_keys=True).encode()).hexdigest()[:8]


def relevance_of(answers: TeacherAnswers, suite: Suite, seed: int) -> dict[str, float]:
    """Return how alike the teacher's features (or its class probabilities) and the labels are, by task: PARC on labelled training
    rows. Tasks without simple labels are left out.

    Args:
        answers: Of the teacher.
        suite: The rows; only labels of training rows are read.
        seed: Draws the rows.
    """
    from graftwork.interfaces.task_kind import task_kind
    from graftwork.math.representation_similarity import parc

    source = answers.features if answers.features is not None else answers.classes
    found: dict[str, float] = {}
    for task in suite.tasks:
        columns = task_kind(task).label_columns(task, suite.targets[task.name])
        rows = suite.splits["train"][labelled_rows(suite.targets[task.name][suite.splits["train"]])]
        if not columns or len(rows) < 3:
            continue
        chosen = np.sort(Seeds(seed).numpy(f"relevance/{task.name}").permutation(rows)[:_RELEVANCE_ROWS])
        seen = source if source is not None else answers.outputs.get(task.name)
        if seen is None or seen.ndim != 2:
            continue
        labels = (
            columns[0].values[chosen]
            if columns[0].form == "classes" and len(columns) == 1
            else np.stack([np.nan_to_num(np.asarray(column.values, dtype=np.float64)[chosen]) for column in columns], axis=1)
        )
        found[task.name] = parc(np.asarray(seen[chosen]), labels)
    return found


def _blocks(teacher: Any) -> int:
    """Return the number of blocks of a network that can run beside the student; 0 for others."""
    from graftwork.interfaces.backbone import BlockBackbone

    return len(teacher.network.block_list()) if teacher.beside and isinstance(teacher.network, BlockBackbone) else 0


def _costs(teacher: Any) -> dict[str, Any]:
    """Return parameters and milliseconds of the network; empty for a file."""
    if teacher.network is None:
        return {}
    import torch

    from graftwork.training.costs import inference_costs

    row = {name: torch.from_numpy(np.array(array[:1])) for name, array in teacher.arrays.items()}
    total = sum(parameter.numel() for parameter in teacher.network.parameters())
    return {"parameters_total": total, **inference_costs(teacher.network, row, threads=1)}


JOB = TeachJob

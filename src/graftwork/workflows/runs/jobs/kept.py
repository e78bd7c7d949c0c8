"""How near are the features of a trained student to those of its teachers, on test rows?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import CheckpointError
from graftwork.data.teacher_answers import read_answers
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job, check_folder_name
from graftwork.workflows.runs.job_checkpoints import load_job_checkpoint
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "KeptJob"]

_ROWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptJob(Job):
    """Loads the checkpoint of a finished training and compares representations."""

    kind: ClassVar[str] = "kept"

    source: str
    """The finished training."""
    answers: tuple[str, ...] = ()
    """Stored answers of the teachers."""

    def __post_init__(self) -> None:
        Job.__post_init__(self)
        check_folder_name("source", self.source)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its own folder and that of the training."""
        return f"jobs/{self.id}", f"jobs/{self.source}"

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Compare by linear CKA; None for teachers without features, and students that share no representation.

        Raises:
            CheckpointError: If the checkpoint is gone or damaged.
        """
        from graftwork.math.representation_similarity import linear_cka
        from graftwork.nn.representation import representation_of
        from graftwork.workflows.rank.loading import pooled

        suite = self.suite(run)
        learner: Any = self.learner(suite)
        if not load_job_checkpoint(learner, run.job(self.source)):
            raise CheckpointError(f"The checkpoint in {run.job(self.source)} is missing or damaged. Run again in another folder.")
        rows = suite.splits["test"][:_ROWS]
        seen: list[NDArray[np.float32]] = []
        for batch in learner.batches("test", 64):
            states = representation_of(learner.best_model, batch)
            if states is None or sum(len(part) for part in seen) >= len(rows):
                break
            seen.append(pooled(states).cpu().numpy())
        alike: list[float | None] = []
        for entry in self.answers:
            features = read_answers(entry).features
            alike.append(
                linear_cka(np.concatenate(seen)[: len(rows)], np.asarray(features[rows]))
                if seen and features is not None
                else None
            )
        return {"status": "ok", "cka": alike}


JOB = KeptJob

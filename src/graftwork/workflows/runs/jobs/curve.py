"""Train a plan on a part of its training rows, for the learning curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graftwork.data.samples import nested_sample
from graftwork.data.suite import Suite
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "CurveJob"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveJob(TrainJob):
    """A final with fewer rows: those of a smaller part are among those of a larger one, and the test rows are the same."""

    kind: ClassVar[str] = "curve"

    part: float
    """Share of the training and validation rows, in (0, 1)."""

    def suite(self, run: RunFolder) -> Suite:
        """Return the suite with fewer rows to learn from."""
        return nested_sample(TrainJob.suite(self, run), self.part, self.seed)

    def run(self, run: RunFolder, control: Any) -> dict[str, Any]:
        """Train, judge, predict; ``rows`` of the result are the training rows."""
        answer = TrainJob.run(self, run, control)
        return {**answer, "rows": len(self.suite(run).splits["train"])}


JOB = CurveJob

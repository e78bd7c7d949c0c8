"""The short run, before there is a schedule, in which affinities are measured on training rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graftwork.data.suite import Suite
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.affinity import AffinityJob, within_training
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "GroupingJob"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingJob(AffinityJob):
    """Measures affinities for a plan that leaves its groups to the workflow: no validation and no test row is seen."""

    kind: ClassVar[str] = "grouping"

    def suite(self, run: RunFolder) -> Suite:
        """Return the suite with a fifth of its training rows, which the run does not learn from, as validation rows."""
        return within_training(Job.suite(self, run), self.facts.root_seed)


JOB = GroupingJob

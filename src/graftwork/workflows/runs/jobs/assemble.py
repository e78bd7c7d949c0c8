"""Write the average of several finished trainings as one deployable model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graftwork.core.errors import CheckpointError
from graftwork.core.files import write_json
from graftwork.data.suite import Suite
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job, check_folder_name
from graftwork.workflows.runs.job_checkpoints import load_job_checkpoint
from graftwork.workflows.runs.job_data import run_suite
from graftwork.workflows.runs.jobs.export import bases_of, check_is_judged
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["JOB", "AssembleJob"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssembleJob(Job):
    """Loads a checkpoint for every member of a plan whose learner is a :class:`~graftwork.training.blend.BlendLearner`, and
    exports the whole."""

    kind: ClassVar[str] = "assemble"

    sources: tuple[str, ...]
    """Finished trainings, one a member, in their order."""
    folder: str
    """Name of the folder to write."""

    def __post_init__(self) -> None:
        Job.__post_init__(self)
        for source in self.sources:
            check_folder_name("sources", source)
        check_folder_name("folder", self.folder)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its own folder and those of the trainings."""
        return f"jobs/{self.id}", *(f"jobs/{source}" for source in self.sources)

    @property
    def writes(self) -> tuple[str, ...]:
        """Its own folder and the model's."""
        return f"jobs/{self.id}", self.folder

    def suite(self, run: RunFolder) -> Suite:
        """Return the suite as it is stored; the members divide it themselves."""
        return run_suite(run.suite, 0)

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Load, compare with what the trainings answered, export.

        Raises:
            CheckpointError: If a checkpoint is gone or damaged, or predicts something else than its training did.
        """
        from graftwork.training.blend import BlendLearner

        suite = self.suite(run)
        learner = self.learner(suite)
        assert isinstance(learner, BlendLearner)
        for member, source in zip(learner.members, self.sources, strict=True):
            judged = run.job(source)
            if not load_job_checkpoint(member, judged):
                raise CheckpointError(f"The checkpoint in {judged} is missing or damaged. Run again in another folder.")
            check_is_judged(member, member.context.suite, judged / "predictions.safetensors")
        learner.adopt_members()
        folder = run.path / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        learner.export(folder)
        write_json(folder / "exported.json", {"sources": list(self.sources)})
        found = [bases_of(member.context.plan, self.facts.backbone) for member in learner.members]
        bases = {name: text for one, _ in found for name, text in one.items()}
        licences = {name: text for _, one in found for name, text in one.items()}
        return {"status": "ok", "steps": learner.step, "bases": bases, "licences": licences, "ledger": learner.ledger().to_json()}


JOB = AssembleJob

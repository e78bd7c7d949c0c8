"""Write the deployable model of a finished final."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import CheckpointError
from graftwork.core.files import write_json
from graftwork.workflows.fit.control import JobControl
from graftwork.workflows.fit.job_data import build_learner, job_suite
from graftwork.workflows.fit.job_train import load_job_checkpoint
from graftwork.workflows.fit.run_folder import RunFolder

__all__ = ["run_export"]


def run_export(job: Mapping[str, Any], run: RunFolder, control: JobControl) -> dict[str, Any]:
    """Load the checkpoint of the job ``source`` and export it into the folder ``folder`` of the run.

    Raises:
        CheckpointError: If the checkpoint is gone or damaged.
    """
    suite = job_suite(run.suite, job)
    learner = build_learner(job, suite)
    if not load_job_checkpoint(learner, run.job(job["source"])):
        raise CheckpointError(f"The checkpoint in {run.job(job['source'])} is missing or damaged. Run again in another folder.")
    folder = run.path / job["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    learner.export(folder)
    write_json(folder / "exported.json", {"source": job["source"]})
    bases, licences = _base(job, suite.modality)
    return {"status": "ok", "steps": learner.step, "bases": bases, "licences": licences}


def _base(job: Mapping[str, Any], modality: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return fingerprint and licence of the pretrained backbone, by its name."""
    name = job.get("backbone") or ""
    if job["plan"].get("source") != "pretrained" or not name:
        return {}, {}
    from graftwork.nn.backbones.catalog import build_backbone, list_backbones

    licence = next((info.licence for info in list_backbones(modality) if info.name == name.partition("@")[0]), "")
    return {name: build_backbone(name, modality, {}).fingerprint()}, ({name: licence} if licence else {})

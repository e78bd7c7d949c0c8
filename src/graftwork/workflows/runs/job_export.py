"""Write the deployable model of a finished final."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.core.errors import CheckpointError
from graftwork.core.files import write_json
from graftwork.data.suite import Suite
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job_data import StoredPredictions, build_learner, job_suite
from graftwork.workflows.runs.job_train import load_job_checkpoint
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["run_export"]

_CHECKED_ROWS = 256
"""One batch of predictions: enough to tell another set of weights."""


def run_export(job: Mapping[str, Any], run: RunFolder, control: JobControl) -> dict[str, Any]:
    """Load the checkpoint of the job ``source`` and export it into the folder ``folder`` of the run.

    Raises:
        CheckpointError: If the checkpoint is gone or damaged, or is not the model that was judged.
    """
    suite = job_suite(run.suite, job)
    learner = build_learner(job, suite)
    if not load_job_checkpoint(learner, run.job(job["source"])):
        raise CheckpointError(f"The checkpoint in {run.job(job['source'])} is missing or damaged. Run again in another folder.")
    _check_is_judged(learner, suite, run.job(job["source"]) / "predictions.safetensors")
    folder = run.path / job["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    learner.export(folder)
    write_json(folder / "exported.json", {"source": job["source"]})
    bases, licences = _bases(job)
    return {"status": "ok", "steps": learner.step, "bases": bases, "licences": licences}


def _check_is_judged(learner: Learner, suite: Suite, stored: Path) -> None:
    """Compare the loaded model with the predictions that the verdict was made from, on the first test rows.

    Raises:
        CheckpointError: If they differ by more than rounding (the number of threads may differ).
    """
    rows = suite.splits.get("test", np.zeros(0, dtype=np.int64))[:_CHECKED_ROWS]
    if not stored.exists() or not len(rows):
        return
    judged = StoredPredictions(stored, suite, "test")
    for task, found in learner.predict(rows).items():
        expected = judged[task][: len(rows)] if task in judged else found
        if not np.allclose(
            found, expected, rtol=1e-3, atol=1e-3 * float(np.nanmax(np.abs(expected), initial=1e-6)), equal_nan=True
        ):
            raise CheckpointError(
                f"The checkpoint beside {stored} predicts task {task!r} differently from what was judged, so it is not exported. "
                "Run again in another folder, and report this."
            )


def _bases(job: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return fingerprints and licences of the pretrained backbones, by their names."""
    if job["plan"].get("source") != "pretrained":
        return {}, {}
    from graftwork.nn.backbones.catalog import build_backbone, list_backbones, split_names

    licences = {info.name: info.licence for info in list_backbones()}
    names = split_names(job.get("backbone") or "")
    known = {name: licences.get(name.partition("@")[0], "") for name in names}
    return {name: build_backbone(name).fingerprint() for name in names}, {name: text for name, text in known.items() if text}

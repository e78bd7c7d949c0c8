"""Write the deployable model of a finished final."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.errors import CheckpointError
from graftwork.core.files import write_json
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job, check_folder_name
from graftwork.workflows.runs.job_checkpoints import load_job_checkpoint
from graftwork.workflows.runs.job_data import StoredPredictions
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["JOB", "ExportJob", "bases_of", "check_is_judged"]

_CHECKED_ROWS = 256
"""One batch of predictions: enough to tell another set of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportJob(Job):
    """Loads the checkpoint of the job ``source`` and exports it into the folder ``folder`` of the run."""

    kind: ClassVar[str] = "export"

    source: str
    """The finished final."""
    folder: str
    """Name of the folder to write."""

    def __post_init__(self) -> None:
        Job.__post_init__(self)
        check_folder_name("source", self.source)
        check_folder_name("folder", self.folder)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its own folder and that of the final."""
        return f"jobs/{self.id}", f"jobs/{self.source}"

    @property
    def writes(self) -> tuple[str, ...]:
        """Its own folder and the model's."""
        return f"jobs/{self.id}", self.folder

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Load, compare with what was judged, export.

        Raises:
            CheckpointError: If the checkpoint is gone or damaged, or is not the model that was judged.
        """
        suite = self.suite(run)
        learner = self.learner(suite)
        judged = run.job(self.source)
        if not load_job_checkpoint(learner, judged):
            raise CheckpointError(f"The checkpoint in {judged} is missing or damaged. Run again in another folder.")
        # The verdict is about the weights that made these predictions; no others are exported under its name.
        check_is_judged(learner, suite, judged / "predictions.safetensors")
        folder = run.path / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        learner.export(folder)
        # Last of all: whoever finds this file knows that the export is whole.
        write_json(folder / "exported.json", {"source": self.source})
        bases, licences = bases_of(self.plan, self.facts.backbone)
        return {"status": "ok", "steps": learner.step, "bases": bases, "licences": licences}


def check_is_judged(learner: Learner, suite: Suite, stored: Path) -> None:
    """Compare the loaded model with the predictions that its training stored, on the first test rows, or, for a model that was
    handed all rows, on the first rows that it did not learn from.

    Raises:
        CheckpointError: If they differ by more than rounding (the number of threads may differ).
    """
    split = "test" if len(suite.splits.get("test", ())) else "val"
    rows = suite.splits[split][:_CHECKED_ROWS]
    if not stored.exists() or not len(rows):
        return
    judged = StoredPredictions(stored, suite, split)
    for task, found in learner.predict(rows).items():
        # Tasks that were not judged compare with themselves.
        expected = judged[task][: len(rows)] if task in judged else found
        # Absolute against the largest value: near zero, a relative tolerance would ask for equal bits.
        if not np.allclose(
            found, expected, rtol=1e-3, atol=1e-3 * float(np.nanmax(np.abs(expected), initial=1e-6)), equal_nan=True
        ):
            raise CheckpointError(
                f"The checkpoint beside {stored} predicts task {task!r} differently from what was judged, so it is not exported. "
                "Run again in another folder, and report this."
            )


def bases_of(plan: Plan, backbone: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return fingerprints and licences of the pretrained backbones that a plan starts from, by their names."""
    if plan.source != "pretrained":
        return {}, {}
    from graftwork.nn.backbones.catalog import build_backbone, list_backbones, split_names

    licences = {info.name: info.licence for info in list_backbones()}
    names = split_names(backbone)
    known = {name: licences.get(name.partition("@")[0], "") for name in names}
    return {name: build_backbone(name).fingerprint() for name in names}, {name: text for name, text in known.items() if text}


JOB = ExportJob

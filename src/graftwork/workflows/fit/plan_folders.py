"""Folders of kept finalists: ``plans/NAME`` with what prediction needs, and nothing else.

A folder is written beside and renamed, so that it is whole or absent; what is not ours is neither replaced nor removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import remove_own
from graftwork.serving.kept_plans import PLANS_FOLDER
from graftwork.workflows.fit.deploy import complete_model, is_model_of_fit
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.fit.kept_rows import TaskOnKeptRows
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import folder_name
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["PlanFolder", "plan_folders", "remove_others"]

_WHOLE = "kept"
"""Where the new folder is put together, inside of the folder of the export."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFolder:
    """The folder of one plan."""

    run: RunFolder
    plan: str
    name: str
    """Name of the folder in ``plans/``."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run.path / PLANS_FOLDER / self.name

    @property
    def fresh(self) -> str:
        """Name of the folder in the run that the export writes to."""
        return f"plan.new-{self.name}"

    def holds(self, given: Handover) -> bool:
        """Return whether the whole model is there, made of these trainings."""
        if self.path.is_symlink() or not is_model_of_fit(self.path / "model") or not (self.path / "model.onnx").is_file():
            return False
        try:
            config = read_json(self.path / "model" / "config.json")
        except (FileFormatError, OSError):
            return False
        return isinstance(config, Mapping) and config.get("trainings") == [job.id for job in given.trained]

    def problem(self) -> str:
        """Remove what a stopped export left; return why nothing can be written here, empty if it can."""
        for path in (self.path.parent, self.path):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                return f"{path} is a link or a file and was left as it is"
        if self.path.exists() and not is_model_of_fit(self.path / "model"):
            return f"{self.path} is no model that graftwork fit wrote and was left as it is"
        return "" if self.tidy() else f"{self.run.path / self.fresh} is a link, or cannot be removed"

    def tidy(self) -> bool:
        """Remove what an export left beside the folder; return whether nothing is there any more."""
        job = f"jobs/{folder_name(f'export-{self.plan}')}"
        is_job_gone = remove_own(self.run.path, job)
        return remove_own(self.run.path, self.fresh) and is_job_gone

    def take(
        self, context: RunContext[Any], given: Handover, answer: Mapping[str, Any], kept: Mapping[str, TaskOnKeptRows]
    ) -> None:
        """Put what was exported in its place: the graph and what describes it; weights and checkpoints are left out.

        Args:
            context: The run.
            given: What was exported.
            answer: Result of the export.
            kept: As for :func:`graftwork.workflows.fit.deploy.deploy_model`.
        """
        fresh = self.run.path / self.fresh
        complete_model(context, given, fresh, answer, kept)
        model = fresh / _WHOLE / "model"
        model.mkdir(parents=True, exist_ok=True)
        # By these trainings a resumed run knows whether the model is that of its own result.
        write_json(model / "config.json", {**read_json(fresh / "config.json"), "trainings": [job.id for job in given.trained]})
        os.replace(fresh / "lineage.json", model / "lineage.json")
        os.replace(fresh / "model.onnx", fresh / _WHOLE / "model.onnx")
        self.remove()
        self.path.parent.mkdir(exist_ok=True)
        os.replace(fresh / _WHOLE, self.path)
        self.tidy()

    def remove(self) -> None:
        """Remove the folder if it is ours."""
        if is_model_of_fit(self.path / "model"):
            remove_own(self.run.path, f"{PLANS_FOLDER}/{self.name}")

    def size(self) -> int:
        """Return the bytes of its files; 0 if there is none."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def plan_folders(run: RunFolder, plans: Sequence[str]) -> dict[str, PlanFolder]:
    """Return the folders of plans, each with a name of its own."""
    found: dict[str, PlanFolder] = {}
    taken: set[str] = set()
    for plan in plans:
        # Never hidden, never `..`; names that differ in other signs only get numbers.
        first = name = folder_name(plan).lstrip(".") or "plan"
        number = 1
        while name in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(name)
        found[plan] = PlanFolder(run=run, plan=plan, name=name)
    return found


def remove_others(run: RunFolder, names: Collection[str]) -> None:
    """Remove models of plans that are no finalists any more: a run that was stopped may have gone on with more time."""
    for folder in (run.path / PLANS_FOLDER).glob("*"):
        if folder.name not in names and is_model_of_fit(folder / "model"):
            remove_own(run.path, f"{PLANS_FOLDER}/{folder.name}")

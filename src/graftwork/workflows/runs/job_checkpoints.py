"""Checkpoints of a job: each in a new folder, and a pointer file that is replaced when the folder is whole, so that a kill
between two writes leaves the older one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.core.errors import CheckpointError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import remove_own

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["load_job_checkpoint", "save_job_checkpoint"]


def save_job_checkpoint(learner: Learner, folder: Path) -> None:
    """Write a checkpoint of the learner as it is now, and let the pointer name it.

    Two saves at one step need not be equal: a timed checkpoint may fall between the last step and its validation, which decides
    which weights are kept. So every save gets a folder of its own, and none is skipped because one of this step is there.
    """
    pointer = folder / "checkpoint.json"
    # The name alone: a damaged pointer must not lead out of the folder.
    current = Path(read_json(pointer).get("folder", "")).name if pointer.exists() else ""
    name = f"checkpoint-{learner.step}"
    # Never into the folder that the pointer names: a kill while writing would leave no whole checkpoint.
    if name == current:
        name += "-again"
    # What a killed save left; mixing old and new files would pass for whole.
    remove_own(folder, name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    learner.save(folder / name)
    write_json(pointer, {"folder": name, "step": learner.step})
    # Only now: until the pointer was replaced it named one of these.
    for old in folder.glob("checkpoint-*"):
        if old.name != name:
            remove_own(folder, old.name)


def load_job_checkpoint(learner: Learner, folder: Path) -> bool:
    """Load the newest whole checkpoint of a job into a learner; return whether there was one."""
    # A damaged checkpoint is no error: the job begins again, which costs time only.
    with contextlib.suppress(CheckpointError, FileFormatError, OSError, KeyError):
        name = Path(read_json(folder / "checkpoint.json")["folder"]).name
        learner.load(folder / name)
        return True
    return False

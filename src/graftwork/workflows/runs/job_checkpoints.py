"""Checkpoints of a job: each in a new folder, and a pointer file that is replaced when the folder is whole, so that a kill
between two writes leaves the older one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.core.errors import CheckpointError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import remove_own
from graftwork.workflows.runs.warm import take_warm

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["load_job_checkpoint", "resumed_learner", "save_job_checkpoint"]

_POINTER = "checkpoint.json"


def save_job_checkpoint(learner: Learner, folder: Path) -> None:
    """Write a checkpoint of the learner as it is now, and let the pointer name it.

    Two saves at one step need not be equal: a timed checkpoint may fall between the last step and its validation, which decides
    which weights are kept. So every save gets a folder of its own, and none is skipped because one of this step is there.
    """
    pointer = folder / _POINTER
    # The name alone: a damaged pointer must not lead out of the folder.
    current = ""
    with contextlib.suppress(FileFormatError, OSError, LookupError, TypeError):  # none is there, or a damaged one, which goes now
        current = Path(read_json(pointer)["folder"]).name
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


def resumed_learner(build: Callable[[], Learner], *folders: Path) -> Learner:
    """Return a learner that goes on from the first whole checkpoint (in memory, where this process wrote it and loading is slow), or
    begins if there is none.

    Args:
        build: Makes a new one.
        folders: Of jobs, the most wanted first.
    """
    learner = build()
    for folder in folders:
        warm = take_warm(learner, folder)
        if warm is not None:
            return warm
        if os.path.lexists(folder / _POINTER):
            if load_job_checkpoint(learner, folder):
                return learner
            # Parts of a damaged checkpoint may be in it.
            learner = build()
    return learner


def load_job_checkpoint(learner: Learner, folder: Path) -> bool:
    """Load the newest whole checkpoint of a job into a learner; return whether there was one. If not, parts of a damaged one may
    have been loaded: such a learner must not go on (see :func:`resumed_learner`)."""
    # A damaged checkpoint is no error: the job begins again, which costs time only. What its values do to a learner that takes
    # them is anybody's guess.
    damages = (CheckpointError, FileFormatError, OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
    with contextlib.suppress(*damages):
        name = Path(read_json(folder / _POINTER)["folder"]).name
        learner.load(folder / name)
        return True
    return False

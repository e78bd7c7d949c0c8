"""The last learner of this process that is slow to load, for the job that goes on with it.

A job that goes on elsewhere, or after a kill, loads the checkpoint and comes to the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["keep_warm", "take_warm"]

_KEPT: dict[Path, Learner] = {}
"""At most one, by the folder of its job: learners hold their rows."""


def keep_warm(learner: Learner, folder: Path) -> None:
    """Keep a learner whose checkpoint is whole, if loading it would be slow.

    Args:
        learner: As its checkpoint has it.
        folder: Of its job.
    """
    if learner.slow_to_load:
        _KEPT.clear()
        _KEPT[folder.resolve()] = learner


def take_warm(fresh: Learner, folder: Path) -> Learner | None:
    """Return the learner that a job left, with the context of a fresh one; None if it is not here, or was made for something else.

    Args:
        fresh: Learner of the job that goes on.
        folder: Of the job before.
    """
    kept = _KEPT.pop(folder.resolve(), None)
    if kept is None or type(kept) is not type(fresh):
        return None
    before, now = kept.context.identity(), fresh.context.identity()
    if fresh.ignores_horizon:
        before["max_steps"] = now["max_steps"]
    if before != now:
        return None
    kept.context = fresh.context
    return kept

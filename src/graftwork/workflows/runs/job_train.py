"""Train a plan up to a step, judge it on validation rows, and, for finals and controls, predict the test rows.

Checkpoints go into a new folder each time, and a pointer file is replaced when the folder is whole, so that a kill between two
writes leaves the older one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import CheckpointError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import remove_own
from graftwork.workflows.runs.control import JobControl, PauseTraining
from graftwork.workflows.runs.job_data import build_learner, job_suite, score_rows, write_predictions
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["load_job_checkpoint", "run_train"]


def _save(learner: Learner, folder: Path) -> None:
    """Write a checkpoint of the learner as it is now, and let the pointer name it.

    Two saves at one step need not be equal: a timed checkpoint may fall between the last step and its validation, which decides
    which weights are kept. So every save gets a folder of its own, and none is skipped because one of this step is there.
    """
    pointer = folder / "checkpoint.json"
    current = Path(read_json(pointer).get("folder", "")).name if pointer.exists() else ""
    name = f"checkpoint-{learner.step}"
    if name == current:
        name += "-again"
    remove_own(folder, name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    learner.save(folder / name)
    write_json(pointer, {"folder": name, "step": learner.step})
    for old in folder.glob("checkpoint-*"):
        if old.name != name:
            remove_own(folder, old.name)


def load_job_checkpoint(learner: Learner, folder: Path) -> bool:
    """Load the newest whole checkpoint of a job into a learner; return whether there was one."""
    with contextlib.suppress(CheckpointError, FileFormatError, OSError, KeyError):
        name = Path(read_json(folder / "checkpoint.json")["folder"]).name
        learner.load(folder / name)
        return True
    return False


def _train(learner: Learner, until: int, folder: Path, control: JobControl) -> bool:
    """Train with checkpoints in between; return whether it was stopped before the end."""
    done = False  # also with no step left: a stop may have come between the last step and its validation
    while not done and control.stop is None:
        control.begin_slice()
        try:
            learner.train(until, on_progress=control.progress)
            done = True
        except PauseTraining:
            if control.stop is None:
                _save(learner, folder)
    return not done


def run_train(job: Mapping[str, Any], run: RunFolder, control: JobControl) -> dict[str, Any]:
    """Run a rung, a final or a control.

    Keys of the job: ``plan``, ``seed``, ``until``, ``max_steps``; ``continues`` (job whose checkpoint is the start),
    ``keep_task`` (control: whose companions are shuffled), ``predict`` (splits whose predictions are stored).
    """
    folder = run.job(job["id"])
    suite = job_suite(run.suite, job)
    learner = build_learner(job, suite)
    own = load_job_checkpoint(learner, folder)
    if not own and job.get("continues"):
        load_job_checkpoint(learner, run.job(job["continues"]))
    control.checkpoint_seconds = float(job.get("checkpoint_seconds", control.checkpoint_seconds))
    cut = _train(learner, job["until"], folder, control)
    if cut and control.stop == "keep":
        _save(learner, folder)
        return {"status": "stopped", "steps": learner.step}
    # From here on the learner does not change: what is scored, stored and later exported is one state.
    scores, _ = score_rows(learner, suite, suite.splits["val"])
    wanted = [split for split in job.get("predict", ()) if len(suite.splits.get(split, ()))]
    if wanted:
        predictions = {split: learner.predict(suite.splits[split]) for split in wanted}
        write_predictions(folder / "predictions.safetensors", predictions, suite)
    _save(learner, folder)
    return {
        "status": "ok",
        "plan": job["plan"]["name"],
        "seed": job["seed"],
        "steps": learner.step,
        "cut": cut or bool(job.get("cut")),
        "validation": scores,
        "ledger": learner.ledger().to_json(),
    }

"""A job: plain JSON in, a folder with ``result.json`` out. Jobs are what the pool runs; they know nothing of the race.

Whatever goes wrong inside a job ends up in its result (``diverged``, ``failed``), so that the race goes on; only a full disk
and the like come out as errors, because every other job would meet them too.
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, GraftworkError, StorageError, TrainingDivergedError
from graftwork.core.files import write_json, write_text
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.run_folder import RunFolder, clean_json

__all__ = ["JOB_KINDS", "Job", "execute", "make_job"]

Job = dict[str, Any]
"""``id``, ``kind``, and what the kind needs; JSON values only."""

JOB_KINDS: dict[str, str] = {
    "estimate": "graftwork.workflows.runs.job_estimate:run_estimate",
    "train": "graftwork.workflows.runs.job_train:run_train",
    "affinity": "graftwork.workflows.runs.job_affinity:run_affinity",
    "export": "graftwork.workflows.runs.job_export:run_export",
}


def make_job(kind: str, job_id: str, **fields: Any) -> Job:
    """Return a job; ``job_id`` becomes a folder name."""
    safe = "".join(letter if letter.isalnum() or letter in "-_.+" else "_" for letter in job_id)
    return {"id": safe, "kind": kind, **fields}


def execute(job: Job, run_folder: str | Path, control: JobControl | None = None) -> dict[str, Any]:
    """Run a job to its end, or until ``control`` stops it.

    A finished job is not run again: its stored result is returned. A half-trained one goes on from its checkpoint.

    Returns:
        The result; ``status`` is ``ok``, ``diverged``, ``failed`` or ``stopped`` (stopped jobs leave no ``result.json``).

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    folder = RunFolder(run_folder)
    stored = folder.result(job["id"])
    if stored is not None:
        return stored
    control = control or JobControl()
    started = time.monotonic()
    try:
        outcome = _function(job["kind"])(job, folder, control)
    except StorageError:
        raise
    except Exception as error:
        outcome = _failure(error, folder, job)
    result = clean_json({"id": job["id"], "kind": job["kind"], "message": "", **outcome})
    result["seconds"] = round(time.monotonic() - started, 3)
    if result["status"] != "stopped":
        write_json(folder.job(job["id"]) / "result.json", result)
    return result


def _function(kind: str) -> Callable[[Job, RunFolder, JobControl], Mapping[str, Any]]:
    if kind not in JOB_KINDS:
        raise ConfigError(f"There is no job of kind {kind!r}; known kinds: {', '.join(JOB_KINDS)}.")
    module, _, name = JOB_KINDS[kind].partition(":")
    function: Callable[[Job, RunFolder, JobControl], Mapping[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def _failure(error: Exception, folder: RunFolder, job: Job) -> dict[str, Any]:
    if isinstance(error, OSError) and not isinstance(error, GraftworkError):
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageError(
                f"The disk is full while working in {folder.job(job['id'])}. Nothing written before is lost. Free some space "
                "and run the same command with --resume."
            ) from error
    diverged = isinstance(error, TrainingDivergedError)
    if not isinstance(error, GraftworkError):
        write_text(folder.job(job["id"]) / "error.txt", "".join(traceback.format_exception(error)))
    name = "" if isinstance(error, GraftworkError) else f"{type(error).__name__}: "
    return {
        "status": "diverged" if diverged else "failed",
        "message": f"{name}{error}"[:2000],
        "error": type(error).__name__,
    }

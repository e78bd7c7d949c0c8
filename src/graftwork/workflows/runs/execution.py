"""Carry a job out: a typed record in, a folder with ``result.json`` out.

Whatever goes wrong inside a job ends up in its result (``diverged``, ``failed``), so that the race goes on; only a full disk
and the like come out as errors, because every other job would meet them too.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import GraftworkError, StorageError, TrainingDivergedError
from graftwork.core.files import write_json, write_text
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder, clean_json

__all__ = ["answer", "execute", "refusal"]

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
_OF_THE_FOLDER = (errno.EACCES, errno.EPERM)


def execute(job: Job, run_folder: str | Path, control: JobControl | None = None) -> dict[str, Any]:
    """Run a job to its end, or until ``control`` stops it.

    A finished job is not run again: its stored result is returned. A half-trained one goes on from its checkpoint.

    Returns:
        The result; ``status`` is ``ok``, ``diverged``, ``failed`` or ``stopped`` (stopped jobs leave no ``result.json``).

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    folder = RunFolder(run_folder)
    # The result file is written last, so its presence means that the job ended.
    stored = folder.result(job.id)
    if stored is not None:
        return stored
    control = control or JobControl()
    started = time.monotonic()
    try:
        outcome = job.run(folder, control)
    except StorageError:
        raise
    except Exception as error:
        outcome = _failure(error, folder, job)
    result = clean_json({"id": job.id, "kind": job.kind, "message": "", **outcome})
    result["seconds"] = round(time.monotonic() - started, 3)
    # A stopped job has no result: a resume goes on with it.
    if result["status"] != "stopped":
        write_json(folder.job(job.id) / "result.json", result)
    return result


def answer(job: Job, run_folder: str | Path, control: JobControl) -> dict[str, Any]:
    """Run a job; return what a worker says of it: ``done`` with the result, or ``storage`` if the disk is full."""
    try:
        return {"type": "done", "id": job.id, "result": execute(job, run_folder, control)}
    except StorageError as error:
        return {"type": "storage", "id": job.id, "message": str(error)}


def refusal(value: Any, error: GraftworkError) -> dict[str, Any]:
    """Return what a worker says of something that is no job it knows: ``done``, failed. Nothing is written into the run folder,
    because nothing says which folder would be that of the job."""
    name, kind = (str(value.get(key, "")) if isinstance(value, Mapping) else "" for key in ("id", "kind"))
    return {"type": "done", "id": name, "result": {"id": name, "kind": kind, **_failed(error, "failed"), "seconds": 0.0}}


def _failure(error: Exception, folder: RunFolder, job: Job) -> dict[str, Any]:
    if isinstance(error, OSError) and not isinstance(error, GraftworkError) and _meets_all(error, folder):
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "The disk is full" if is_full else f"The system refused a file ({error.strerror or error})"
        raise StorageError(
            f"{what} while working in {folder.job(job.id)}. Nothing written before is lost. "
            f"{'Free some space' if is_full else 'Remove the cause'} and run the same command with --resume."
        ) from error
    diverged = isinstance(error, TrainingDivergedError)
    # Errors of graftwork explain themselves; of all others the traceback is needed.
    if not isinstance(error, GraftworkError):
        write_text(folder.job(job.id) / "error.txt", "".join(traceback.format_exception(error)))
    return _failed(error, "diverged" if diverged else "failed")


def _meets_all(error: OSError, folder: RunFolder) -> bool:
    """Return whether every other job would meet an error as well: then the run ends in place of failing job by job, and a resume
    tries again."""
    of_the_run = str(error.filename or "").startswith(str(folder.path))
    return error.errno in _OF_THE_MACHINE or (error.errno in _OF_THE_FOLDER and of_the_run)


def _failed(error: Exception, status: str) -> dict[str, Any]:
    name = "" if isinstance(error, GraftworkError) else f"{type(error).__name__}: "
    return {
        "status": status,
        "message": f"{name}{error}"[:2000],
        "error": type(error).__name__,
    }

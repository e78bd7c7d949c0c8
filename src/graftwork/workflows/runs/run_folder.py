"""The folder of a run: where everything lies, who may write, and what is finished.

``run.json`` holds settings, state and schedule; ``jobs/<id>/result.json`` is written last in every job, so that a job is
finished or it is not; a lock keeps two processes from working in one folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, FileFormatError, StorageError
from graftwork.core.files import append_jsonl, read_json, write_json
from graftwork.core.folders import Claim, FolderKind, check_contents, claim_folder, remove_own
from graftwork.core.scratch import sweep
from graftwork.core.version import __version__

__all__ = ["RUN_FORMAT", "RUN_KIND", "RunFolder", "clean_json", "utc_now"]

RUN_FORMAT = "graftwork-run-1"
RUN_KIND = FolderKind(marker="run.json", format=RUN_FORMAT, noun="a run of graftwork", lock=".lock")
_BEFORE_TRAINING = ("suite", "jobs", "logs", "run.json", "log.jsonl", "clock.json", ".lock")
"""All that a run writes before it has a schedule."""


def utc_now() -> str:
    """Return date and time as ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def clean_json(value: Any) -> Any:
    """Return ``value`` with NaN and infinities replaced by None and NumPy numbers by plain ones, so that it is JSON.

    Example:
        >>> clean_json({"a": [1.5, float("nan")]})
        {'a': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    if hasattr(value, "tolist"):
        return clean_json(value.tolist())
    # NaN fails the comparison as well.
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


class RunFolder:
    """Paths and state of one run.

    Args:
        path: The folder; :meth:`create` or :meth:`open` before anything is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state: dict[str, Any] = {}
        self._claim: Claim | None = None
        self._started = time.monotonic()
        self._listener: Callable[[dict[str, Any]], None] | None = None

    @property
    def suite(self) -> Path:
        """Folder of the saved suite."""
        return self.path / "suite"

    @property
    def result_file(self) -> Path:
        """The result of the whole run."""
        return self.path / "result.json"

    def job(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.path / "jobs" / job_id

    def exists(self) -> bool:
        """Return whether a run was begun here."""
        return (self.path / "run.json").exists()

    def create(self, settings: Mapping[str, Any], command: str, **more: Any) -> None:
        """Begin a new run: claim the folder and write ``run.json``, the marker, before anything else.

        Raises:
            ConfigError: If the folder is not empty, or another process works in it.
            StorageError: If it cannot be written.
        """
        self._claim = claim_folder(self.path, RUN_KIND)
        if not self._claim.is_new:  # begun by another process since the caller looked
            self.release()
            raise ConfigError(f"{self.path} already holds a run. Choose another folder with --out.")
        self.state = {
            "format": RUN_FORMAT,
            "version": __version__,
            "created": utc_now(),
            "command": command,
            "settings": dict(settings),
            "state": "created",
            **more,
            "seconds_used": 0.0,
        }
        try:
            self.save()
        except BaseException:
            # Also Ctrl-C: a folder with a lock and no `run.json` would be taken for the user's own.
            self.discard()
            self.release()
            raise

    def open(self) -> None:
        """Lock an existing run and read its state.

        Raises:
            FileFormatError: If ``run.json`` is of another format.
            ConfigError: If another process works in this folder, or it holds links or special files.
        """
        self.check_contents()
        # Before the lock: a folder of something else gets no lock file of ours.
        self.read_state()
        self._claim = claim_folder(self.path, RUN_KIND)
        self.state = self.read_state()  # as the holder of the lock left it
        self._sweep()

    def check_contents(self) -> None:
        """Refuse a run that holds links or special files, before it is written to; see :func:`.check_contents`.

        Raises:
            ConfigError: Naming the first one.
        """
        check_contents(self.path, RUN_KIND)

    def _sweep(self) -> None:
        """Remove temporary files that killed processes of this run left; all of them worked under the lock that is held now."""
        inside = ("jobs/*", "jobs/*/checkpoint*", "model", "model.new", "plans/*", "plan.new-*", "suite", "logs")
        for folder in (self.path, *(found for pattern in inside for found in self.path.glob(pattern))):
            # Links may lead to folders of others.
            if folder.is_dir() and not folder.is_symlink():
                sweep(folder)

    def read_state(self) -> dict[str, Any]:
        """Read ``run.json`` without locking."""
        state = read_json(self.path / "run.json")
        if not isinstance(state, dict) or state.get("format") != RUN_FORMAT:
            raise FileFormatError(
                f"{self.path / 'run.json'} is not of the format {RUN_FORMAT!r}. It was written by another version or is no "
                "run of graftwork; begin a new run in another folder with --out."
            )
        return state

    def save(self, **changes: Any) -> None:
        """Change the state and write it atomically."""
        self.state |= changes
        write_json(self.path / "run.json", self.state)

    def release(self) -> None:
        """Give the lock back; it also goes away with the process, however that ends."""
        if self._claim is not None:
            self._claim.release()

    def listen(self, listener: Callable[[dict[str, Any]], None] | None) -> None:
        """Send every event to ``listener`` as well as to the log."""
        self._listener = listener

    def emit(self, event: str, *, log: bool = True, **fields: Any) -> None:
        """Tell the listener, and append to ``log.jsonl`` unless ``log`` is False."""
        record = clean_json({"event": event, "time": utc_now(), **fields})
        if log:
            append_jsonl(self.path / "log.jsonl", record)
        if self._listener is not None:
            self._listener(record)

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return the result of a finished job; None if it is not finished."""
        file = self.job(job_id) / "result.json"
        if not file.exists():
            return None
        value = read_json(file)
        return value if isinstance(value, dict) else None

    def drop_checkpoint(self, job_id: str) -> None:
        """Remove the checkpoints of a job whose successor is finished."""
        folder = self.job(job_id)
        # The pointer first: none may name a folder that is gone.
        remove_own(self.path, f"jobs/{job_id}/checkpoint.json")
        for checkpoint in folder.glob("checkpoint-*"):
            remove_own(self.path, f"jobs/{job_id}/{checkpoint.name}")

    def drop_job(self, job_id: str) -> None:
        """Remove all that a job wrote: the next one of this name begins from nothing.

        Raises:
            StorageError: If something stays; half of a job would pass for another one.
        """
        # The result first: without it, whatever a kill leaves is no finished job.
        if not (remove_own(self.path, f"jobs/{job_id}/result.json") and remove_own(self.path, f"jobs/{job_id}")):
            raise StorageError(f"Cannot remove {self.job(job_id)}. Remove it by hand, then go on with --resume {self.path}")

    def discard(self) -> None:
        """Remove what this process wrote of a run that never began to train; all that was in the folder before stays, and so do
        links."""
        if self._claim is not None:
            self._claim.discard(_BEFORE_TRAINING)

    def seconds_used(self) -> float:
        """Return the seconds used by this run so far, over all its resumes."""
        return float(self.state.get("seconds_used", 0.0)) + time.monotonic() - self._started

    def start_clock(self, before: float) -> None:
        """Count from now on, after ``before`` seconds of earlier attempts."""
        self.state["seconds_used"] = before
        self._started = time.monotonic()

"""The folder of a run: where everything lies, who may write, and what is finished.

``run.json`` holds settings, state and schedule; ``jobs/<id>/result.json`` is written last in every job, so that a job is
finished or it is not; a lock keeps two processes from working in one folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftwork.core.version import __version__
from graftwork.core.errors import ConfigError, FileFormatError, StorageError
from graftwork.core.files import append_jsonl, check_writable_folder, read_json, write_json

__all__ = ["RUN_FORMAT", "RunFolder", "clean_json", "default_cache_folder", "utc_now"]

RUN_FORMAT = "graftwork-run-1"


def utc_now() -> str:
    """Return date and time as ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_cache_folder() -> Path:
    """Return the folder for things that runs share: ``$GRAFTWORK_CACHE``, or ``graftwork`` in the user's cache folder."""
    named = os.environ.get("GRAFTWORK_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graftwork"


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
        self._lock: Any = None
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
        """Begin a new run: prove that the folder can be written, lock it, write ``run.json``."""
        check_writable_folder(self.path)
        self.acquire()
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
        self.save()

    def open(self) -> None:
        """Lock an existing run and read its state.

        Raises:
            FileFormatError: If ``run.json`` is of another format.
        """
        state = self.read_state()
        check_writable_folder(self.path)
        self.acquire()
        self.state = state

    def read_state(self) -> dict[str, Any]:
        """Read ``run.json`` without locking."""
        state = read_json(self.path / "run.json")
        if not isinstance(state, dict) or state.get("format") != RUN_FORMAT:
            raise FileFormatError(
                f"{self.path / 'run.json'} is not of the format {RUN_FORMAT!r}. It was written by another version or is no run of "
                "graftwork; begin a new run in another folder with --out."
            )
        return state

    def save(self, **changes: Any) -> None:
        """Change the state and write it atomically."""
        self.state |= changes
        write_json(self.path / "run.json", self.state)

    def acquire(self) -> None:
        """Take the lock; it goes away with the process, however that ends.

        Raises:
            ConfigError: If another process works in this folder.
        """
        try:
            import fcntl
        except ImportError:  # not a POSIX system: no lock
            return
        try:
            handle = open(self.path / ".lock", "a")  # noqa: SIM115  (held for as long as the run lasts)
        except OSError as error:
            raise StorageError(f"Cannot write into {self.path}: {error.strerror}. Choose another folder with --out.") from error
        for attempt in range(20):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = handle
                return
            except OSError:
                time.sleep(0.1 if attempt else 0.02)
        handle.close()
        raise ConfigError(f"Another process is working in {self.path}. Wait for it to end, or choose another folder with --out.")

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
        with contextlib.suppress(OSError):
            (folder / "checkpoint.json").unlink(missing_ok=True)
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)

    def discard(self) -> None:
        """Remove what a run that never began to train has written; other files in the folder stay."""
        for name in ("suite", "jobs", "logs"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            for name in ("run.json", "log.jsonl", "clock.json", ".lock"):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()  # fails if anything else is in it

    def seconds_used(self) -> float:
        """Return the seconds used by this run so far, over all its resumes."""
        return float(self.state.get("seconds_used", 0.0)) + time.monotonic() - self._started

    def start_clock(self, before: float) -> None:
        """Count from now on, after ``before`` seconds of earlier attempts."""
        self.state["seconds_used"] = before
        self._started = time.monotonic()

"""Workers on a Ray cluster: the same jobs, the same JSON, on other machines.

An actor works in the run folder itself if it sees it (this machine, or a shared disk). Elsewhere it gets a copy of the stored
suite once and the folders that a job reads, works in a scratch folder, and sends the job's folder back; the result file is
written last, as ever.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.core.components import allow_components, allowed_packages
from graftwork.core.errors import GraftworkError, StorageError
from graftwork.core.files import cache_folder, write_bytes, write_text
from graftwork.core.folders import remove_own
from graftwork.core.optional import require
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import answer, refusal
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs import read_job
from graftwork.workflows.runs.pool_worker import Answers, PoolWorker, StartWorker, StopRequest
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["RayWorker", "RemoteExecutor", "pack_folders", "ray_pool_parts", "unpack_folders"]

_TOKEN = "engine-token"
POLL_SECONDS = 0.25


def _ray() -> Any:
    return require("ray", extra="ray", purpose="The engine ray")


def pack_folders(root: Path, names: Iterable[str]) -> bytes:
    """Return some folders below ``root`` as an uncompressed zip; folders that are not there are left out."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            # In this order `checkpoint.json` follows the folders `checkpoint-*` that it may name.
            for file in sorted((root / name).rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(root).as_posix())
    return target.getvalue()


def unpack_folders(archive: bytes, root: Path) -> None:
    """Write :func:`pack_folders`' files below ``root``, each whole or not at all, results last.

    Raises:
        StorageError: If a file cannot be written, or a name leads out of ``root``.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        for name in sorted(packed.namelist(), key=lambda item: item.endswith("/result.json")):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise StorageError(f"A worker sent a file called {name!r}, which lies outside of {root}. Nothing was written.")
            write_bytes(root / path, packed.read(name))


class RemoteExecutor:
    """Runs jobs inside an actor; texts of JSON in and out.

    Args:
        hello: ``run_folder``, ``token`` (what the file in its ``logs`` must say if the folder is seen from here), ``path`` (of
            imports) and ``allowed`` (packages whose components may be imported).
    """

    def __init__(self, hello: str) -> None:
        settings = json.loads(hello)
        # Of the driver's import paths only those that exist on this machine.
        sys.path += [part for part in settings["path"] if part not in sys.path and os.path.isdir(part)]
        allow_components(*settings["allowed"])
        folder = Path(settings["run_folder"])
        token = folder / "logs" / _TOKEN
        self._sees_folder = token.is_file() and token.read_text(encoding="utf-8") == settings["token"]
        self._folder = folder if self._sees_folder else Path(tempfile.mkdtemp(prefix="graftwork-"))
        self._controls: dict[str, JobControl] = {}
        self._messages: list[str] = []
        self._stops: dict[str, str] = {}
        self._lock = threading.Lock()

    def sees_folder(self) -> bool:
        """Return whether jobs run in the run folder itself."""
        return self._sees_folder

    def receive(self, archive: bytes) -> None:
        """Take files that jobs read."""
        unpack_folders(archive, self._folder)

    def poll(self) -> list[str]:
        """Return and forget the messages since the last call."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def stop(self, job_id: str, mode: str) -> None:
        """Stop a job, also one that is about to start."""
        with self._lock:
            # The request may overtake the job: it is kept until `execute` asks for it.
            self._stops[job_id] = mode
            control = self._controls.get(job_id)
        if control is not None:
            control.stop = mode  # type: ignore[assignment]

    def execute(self, text: str) -> tuple[str, bytes]:
        """Run a job; return its answer and, where the run folder is not seen, the files that it wrote."""
        value = json.loads(text)
        try:
            job = read_job(value)
        except GraftworkError as error:
            return json.dumps(refusal(value, error)), b""
        control = JobControl(report=self._report)
        with self._lock:
            self._controls[job.id] = control
            if job.id in self._stops:
                control.stop = self._stops.pop(job.id)  # type: ignore[assignment]
        local = job if self._sees_folder else job.with_cache(str(cache_folder()))
        said = answer(local, self._folder, control)
        files = b"" if self._sees_folder else pack_folders(self._folder, job.writes)
        with self._lock:
            # A stop that came after the end must not hit a later try of the same job.
            self._controls.pop(job.id, None)
            self._stops.pop(job.id, None)
        return json.dumps(said), files

    def _report(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._messages.append(json.dumps(message))

    def close(self) -> None:
        """Remove the scratch folder."""
        if not self._sees_folder:
            remove_own(self._folder.parent, self._folder.name)


class RayWorker(PoolWorker):
    """One actor and the threads that follow its jobs.

    Args:
        number: Number of the worker.
        run_folder: The run folder on this machine.
        threads: Cores that the actor takes.
        answers: Where answers go.
    """

    def __init__(self, number: int, run_folder: Path, threads: int, answers: Answers) -> None:
        self._ray, self._run, self._answers = _ray(), RunFolder(run_folder), answers
        token = run_folder / "logs" / _TOKEN
        if not token.exists():
            write_text(token, uuid.uuid4().hex)
        hello = {
            "run_folder": str(run_folder.resolve()),
            "token": token.read_text(encoding="utf-8"),
            "path": sys.path,
            "allowed": allowed_packages(),
        }
        # One thread for the job, the others for stops and polls while it runs.
        actor = self._ray.remote(num_cpus=threads, max_concurrency=4, max_restarts=0)(RemoteExecutor)
        self._actor = actor.remote(json.dumps(hello))
        self._sees_folder: bool | None = None
        self._reason = ""

    def start(self, job: Job) -> None:
        """Pass a job on to the actor."""
        threading.Thread(target=self._follow, args=(job,), daemon=True).start()

    def stop(self, job_id: str, mode: StopRequest) -> None:
        """Pass the request on to the actor."""
        # Not waited for: the pool asks several workers in a row.
        self._actor.stop.remote(job_id, mode)

    def leave(self) -> None:
        """Let the actor remove its scratch folder."""
        with contextlib.suppress(Exception):
            self._ray.get(self._actor.close.remote(), timeout=1.0)

    def _follow(self, job: Job) -> None:
        """Start a job and pass on what the actor says until it ends; runs in a thread of its own."""
        ray = self._ray
        try:
            if self._sees_folder is None:
                self._sees_folder = ray.get(self._actor.sees_folder.remote())
                if not self._sees_folder:
                    ray.get(self._actor.receive.remote(pack_folders(self._run.path, ["suite"])))
            if not self._sees_folder:
                ray.get(self._actor.receive.remote(pack_folders(self._run.path, job.reads)))
            reference = self._actor.execute.remote(json.dumps(job.to_json()))
            ready: list[Any] = []
            while not ready:
                ready, _ = ray.wait([reference], timeout=POLL_SECONDS)
                for line in ray.get(self._actor.poll.remote()):
                    self._answers.put((self, json.loads(line)))
            text, files = ray.get(reference)
            # Files before the answer: whoever hears of the end finds the result in the run folder.
            if files:
                unpack_folders(files, self._run.path)
            self._answers.put((self, json.loads(text)))
        except StorageError as error:
            self._answers.put((self, {"type": "storage", "id": job.id, "message": str(error)}))
        except Exception as error:  # whatever Ray raises, the job must not hang: its worker counts as gone
            self._reason = (str(error).strip().splitlines() or [""])[0]
            self._answers.put((self, None))

    def kill(self) -> None:
        """End the actor."""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)

    def wait(self, seconds: float) -> None:
        """Nothing to wait for: :meth:`kill` ends an idle actor at once."""

    @property
    def ending(self) -> str:
        """Say what Ray said."""
        return f"on the Ray cluster ({self._reason})"


def ray_pool_parts(workers: int) -> tuple[int, StartWorker, Callable[[], None]]:
    """Connect to Ray; return the number of workers, what starts one, and what disconnects.

    Args:
        workers: Number of workers; 0 takes one for each core of the cluster.

    Raises:
        MissingDependencyError: If Ray is not installed.
    """
    ray = _ray()
    owned = not ray.is_initialized()
    if owned:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        # Without an address Ray starts a cluster here, and would take all cores of the machine, not those that are free for us.
        if not os.environ.get("RAY_ADDRESS"):
            from graftwork.core.machine import available_cores

            settings |= {"num_cpus": workers or available_cores(), "include_dashboard": False}
        # Ray puts the folder in which it is started first on the import path of its workers, and that may be a folder from
        # somebody else.
        try:
            with contextlib.chdir(PACKAGE_FOLDER.parent):
                ray.init(**settings)
        except Exception as error:  # each part of Ray fails in ways of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise GraftworkError(
                f"No Ray cluster could be {'reached' if os.environ.get('RAY_ADDRESS') else 'started'}: {reason:.300}. Check RAY_ADDRESS "
                "and the folder that RAY_TMPDIR or TMPDIR names, or run here with --engine local."
            ) from error
    size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    return size, RayWorker, (ray.shutdown if owned else lambda: None)

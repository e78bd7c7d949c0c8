"""A pool of worker processes that take jobs in order. A worker that dies costs its job one more try, never the race."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import graftwork
from graftwork.core.errors import StorageError
from graftwork.core.files import write_json
from graftwork.workflows.fit.control import JobControl
from graftwork.workflows.fit.jobs import Job, execute
from graftwork.workflows.fit.run_folder import RunFolder

__all__ = ["InlinePool", "StopRequest", "WorkerPool", "make_pool"]

StopRequest = Literal["keep", "finish", "kill"]
Listener = Callable[[str, Mapping[str, Any], Mapping[str, Any]], None]
"""Called with ``start``, ``progress`` or ``end``, the job, and details."""

MAX_ATTEMPTS = 2
GRACE_SECONDS = {"keep": 20.0, "finish": 60.0, "kill": 0.0}


_PACKAGE = Path(graftwork.__file__).parents[1]
"""Folder from which this process imported graftwork: workers import the same."""


def _old_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


class _Worker:
    """One process and the thread that reads its answers."""

    def __init__(
        self, number: int, run_folder: Path, threads: int, answers: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self.job: Job | None = None
        self.asked_to_stop: StopRequest | None = None
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(threads)
        )
        log_folder = run_folder / "logs"
        log_folder.mkdir(parents=True, exist_ok=True)
        with open(log_folder / f"worker-{number}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "graftwork.workflows.fit.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **limits, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), *_old_path()])},
                start_new_session=True,
                text=True,
                encoding="utf-8",
            )
        self.send({"parent": os.getpid(), "path": sys.path, "run_folder": str(run_folder)})
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()

    def _read(self, answers: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                answers.put((self, json.loads(line)))
        answers.put((self, None))

    def send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # a dead worker is found by its end of output
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(OSError, ValueError):
            self.process.wait(timeout=5)
            if self.process.stdin is not None:
                self.process.stdin.close()


class WorkerPool:
    """Runs lists of jobs on ``size`` processes with one thread of arithmetic each.

    Args:
        run_folder: Folder of the run.
        size: Number of processes, at least 1; they start when the first jobs come.
        threads: Threads of each process.
    """

    def __init__(self, run_folder: Path, size: int, *, threads: int = 1) -> None:
        self._folder = RunFolder(run_folder)
        self._size, self._threads = size, threads
        self._answers: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[_Worker] = []
        self._started = 0

    def run(
        self, jobs: Sequence[Job], *, listener: Listener | None = None, stop: Callable[[], StopRequest | None] = lambda: None
    ) -> dict[str, dict[str, Any]]:
        """Run jobs, in order of the list, as workers get free.

        Args:
            jobs: The jobs; finished ones are answered from their folder.
            listener: Told of starts, progress and ends.
            stop: Asked several times a second. ``keep`` and ``finish`` are passed on to running jobs and keep the others from
                starting; ``kill`` ends the processes.

        Returns:
            ``{job id: result}`` for all jobs that ended; jobs that never started are missing.

        Raises:
            StorageError: If the disk is full; the other workers are stopped and keep their checkpoints.
        """
        results: dict[str, dict[str, Any]] = {}
        waiting: deque[Job] = deque()
        for job in jobs:
            stored = self._folder.result(job["id"])
            if stored is not None:
                results[job["id"]] = stored
            else:
                waiting.append(job)
        attempts: dict[str, int] = {}
        tell = listener or (lambda *_: None)
        storage: str | None = None
        give_up = float("inf")
        while waiting or any(worker.job for worker in self._workers):
            asked = "keep" if storage is not None else stop()
            if asked is not None:
                waiting.clear()
                give_up = min(give_up, time.monotonic() + GRACE_SECONDS[asked])
                self._ask_to_stop(asked)
                if time.monotonic() >= give_up:
                    self._kill_busy(results)
                    break
            else:
                self._start(waiting, attempts, tell)
            with contextlib.suppress(queue.Empty):
                worker, message = self._answers.get(timeout=0.1)
                if message is None:
                    self._handle_death(worker, waiting, attempts, results, tell, stopping=asked is not None)
                elif message["type"] == "progress":
                    if worker.job is not None:
                        tell("progress", worker.job, message)
                elif message["type"] == "storage":
                    storage = message["message"]
                    worker.job = None
                else:
                    ended = worker.job or {"id": message["id"]}
                    worker.job = worker.asked_to_stop = None
                    results[message["id"]] = message["result"]
                    tell("end", ended, message["result"])
        if storage is not None:
            raise StorageError(storage)
        return results

    def _start(self, waiting: deque[Job], attempts: dict[str, int], tell: Listener) -> None:
        while waiting:
            worker = next((worker for worker in self._workers if worker.job is None), None)
            if worker is None and len(self._workers) < self._size:
                worker = _Worker(self._started, self._folder.path, self._threads, self._answers)
                self._started += 1
                self._workers.append(worker)
            if worker is None:
                return
            job = waiting.popleft()
            attempts[job["id"]] = attempts.get(job["id"], 0) + 1
            worker.job, worker.asked_to_stop = job, None
            worker.send({"type": "job", "job": job})
            tell("start", job, {})

    def _ask_to_stop(self, mode: StopRequest) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.asked_to_stop != mode:
                worker.asked_to_stop = mode
                worker.send({"type": "stop", "id": worker.job["id"], "mode": mode})

    def _kill_busy(self, results: dict[str, dict[str, Any]]) -> None:
        for worker in list(self._workers):
            if worker.job is not None:
                results[worker.job["id"]] = {"id": worker.job["id"], "status": "stopped", "message": "stopped before its end"}
                worker.kill()
                worker.job = None
                self._workers.remove(worker)

    def _handle_death(
        self,
        worker: _Worker,
        waiting: deque[Job],
        attempts: dict[str, int],
        results: dict[str, dict[str, Any]],
        tell: Listener,
        *,
        stopping: bool,
    ) -> None:
        worker.kill()
        if worker in self._workers:
            self._workers.remove(worker)
        job, worker.job = worker.job, None
        if job is None:
            return
        stored = self._folder.result(job["id"])
        if stored is not None:
            results[job["id"]] = stored
        elif stopping:
            results[job["id"]] = {"id": job["id"], "status": "stopped", "message": "its process ended while stopping"}
        elif attempts[job["id"]] < MAX_ATTEMPTS:
            waiting.appendleft(job)
            return
        else:
            code = worker.process.returncode
            reason = (
                f"by signal {-code}, perhaps for lack of memory" if code is not None and code < 0 else f"with exit code {code}"
            )
            results[job["id"]] = {
                "id": job["id"],
                "kind": job["kind"],
                "status": "failed",
                "message": f"Its process ended {reason}, {MAX_ATTEMPTS} times. See {self._folder.path / 'logs'}.",
                "seconds": 0.0,
            }
            write_json(self._folder.job(job["id"]) / "result.json", results[job["id"]])
        tell("end", job, results[job["id"]])

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.send({"type": "exit"})
        deadline = time.monotonic() + 1.0
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=max(0.05, deadline - time.monotonic()))
            worker.kill()
        self._workers.clear()


class InlinePool:
    """The same, one job after the other in this process: for debugging, and where processes cannot be started."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder

    def run(
        self, jobs: Sequence[Job], *, listener: Listener | None = None, stop: Callable[[], StopRequest | None] = lambda: None
    ) -> dict[str, dict[str, Any]]:
        """Run jobs; see :meth:`WorkerPool.run`."""
        results: dict[str, dict[str, Any]] = {}
        tell = listener or (lambda *_: None)
        for job in jobs:
            if stop() is not None and RunFolder(self._folder).result(job["id"]) is None:
                continue
            control = JobControl()

            def report(message: dict[str, Any], job: Job = job, control: JobControl = control) -> None:
                tell("progress", job, message)
                asked = stop()
                if asked is not None:
                    control.stop = "finish" if asked == "finish" else "keep"

            control.report = report
            tell("start", job, {})
            results[job["id"]] = execute(job, self._folder, control)
            tell("end", job, results[job["id"]])
        return results

    def close(self) -> None:
        """Nothing to end."""


def make_pool(run_folder: Path, workers: int) -> WorkerPool | InlinePool:
    """Return a pool of ``workers`` processes; 0 runs everything in this process."""
    return WorkerPool(run_folder, workers) if workers > 0 else InlinePool(run_folder)

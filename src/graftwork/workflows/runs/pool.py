"""A pool of workers that take jobs in order. A worker that dies costs its job one more try, never the race.

Workers are processes on this machine, or actors of a Ray cluster (``ray_worker``); scheduling, retries and stopping are the same.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from graftwork.core.errors import StorageError
from graftwork.core.files import write_json
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.pool_worker import Answers, PoolWorker, ProcessWorker, StartWorker, StopRequest
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["Engine", "InlinePool", "Pool", "Results", "StopRequest", "WorkerPool", "make_pool"]

Engine = Literal["local", "ray"]
Listener = Callable[[str, Job, Mapping[str, Any]], None]
"""Called with ``start``, ``progress`` or ``end``, the job, and details."""
Results = dict[str, dict[str, Any]]
"""``{job id: result}``."""

MAX_ATTEMPTS = 2
GRACE_SECONDS = {"keep": 20.0, "finish": 60.0, "kill": 0.0}


class _Batch:
    """The jobs of one call and what became of them.

    Args:
        jobs: The jobs.
        tell: The listener.
    """

    def __init__(self, jobs: Sequence[Job], tell: Listener) -> None:
        self.by_id = {job.id: job for job in jobs}
        self.tell = tell
        self.waiting: deque[Job] = deque()
        self.attempts: Counter[str] = Counter()
        self.results: Results = {}


class WorkerPool:
    """Runs lists of jobs on ``size`` workers with one thread of arithmetic each.

    Args:
        run_folder: Folder of the run.
        size: Number of workers, at least 1; they start when the first jobs come.
        threads: Threads of each worker.
        start_worker: Starts a worker; a process on this machine by default.
        on_close: Called once after the last worker has ended.
    """

    def __init__(
        self,
        run_folder: Path,
        size: int,
        *,
        threads: int = 1,
        start_worker: StartWorker = ProcessWorker,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = RunFolder(run_folder)
        self._size, self._threads = size, threads
        self._start_worker, self._on_close = start_worker, on_close
        self._answers: Answers = queue.Queue()
        self._workers: list[PoolWorker] = []
        self._did: dict[str, PoolWorker] = {}
        self._started = 0

    def run(
        self, jobs: Sequence[Job], *, listener: Listener | None = None, stop: Callable[[], StopRequest | None] = lambda: None
    ) -> Results:
        """Run jobs, in order of the list, as workers get free.

        Args:
            jobs: The jobs; finished ones are answered from their folder.
            listener: Called with starts, progress and ends.
            stop: Asked several times a second. ``keep`` and ``finish`` are passed on to running jobs and keep the others from
                starting; ``kill`` ends the processes.

        Returns:
            ``{job id: result}`` for all jobs that ended; jobs that never started are missing.

        Raises:
            StorageError: If the disk is full; the other workers are stopped and keep their checkpoints.
        """
        batch = _Batch(jobs, listener or (lambda *_: None))
        for job in jobs:
            stored = self._folder.result(job.id)
            if stored is not None:
                batch.results[job.id] = stored
            else:
                batch.waiting.append(job)
        storage: str | None = None
        give_up = float("inf")
        # Also while nothing waits: busy workers still have to answer.
        while batch.waiting or any(worker.job for worker in self._workers):
            asked = "keep" if storage is not None else stop()
            if asked is not None:
                # Jobs that never started stay out of the results, which tells them from those that were cut.
                batch.waiting.clear()
                # The earliest time counts: asking again (or more strongly) never grants more.
                give_up = min(give_up, time.monotonic() + GRACE_SECONDS[asked])
                self._ask_to_stop(asked)
                if time.monotonic() >= give_up:
                    self._kill_busy(batch)
                    break
            else:
                self._start(batch)
            with contextlib.suppress(queue.Empty):
                worker, message = self._answers.get(timeout=0.1)
                if message is None:
                    self._handle_death(worker, batch, stopping=asked is not None)
                elif message["type"] == "progress":
                    if worker.job is not None:
                        batch.tell("progress", worker.job, message)
                elif message["type"] == "storage":
                    storage = message["message"]
                    worker.job = None
                else:
                    # The worker may have been cut off from its job meanwhile; its answer still counts.
                    ended = worker.job or batch.by_id.get(message["id"])
                    worker.job = worker.asked_to_stop = None
                    batch.results[message["id"]] = message["result"]
                    self._did[message["id"]] = worker
                    if ended is not None:
                        batch.tell("end", ended, message["result"])
        # After the loop, when the other workers have kept their checkpoints.
        if storage is not None:
            raise StorageError(storage)
        return batch.results

    def _start(self, batch: _Batch) -> None:
        while batch.waiting:
            worker = self._idle_worker(batch)
            if worker is None and len(self._workers) < self._size:
                worker = self._start_worker(self._started, self._folder.path, self._threads, self._answers)
                self._started += 1
                self._workers.append(worker)
            if worker is None:
                return
            job = batch.waiting.popleft()
            batch.attempts[job.id] += 1
            worker.job, worker.asked_to_stop = job, None
            worker.start(job)
            batch.tell("start", job, {})

    def _idle_worker(self, batch: _Batch) -> PoolWorker | None:
        """Return a worker for the first job that waits: one that did the job before it may still hold the learner."""
        idle = [worker for worker in self._workers if worker.job is None]
        first, *others = [self._did.get(job.goes_on_from or "") for job in batch.waiting]

        def preference(worker: PoolWorker) -> tuple[bool, bool]:
            return (worker is not first, worker in others)

        return min(idle, key=preference, default=None)

    def _ask_to_stop(self, mode: StopRequest) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.asked_to_stop != mode:
                worker.asked_to_stop = mode
                worker.stop(worker.job.id, mode)

    def _kill_busy(self, batch: _Batch) -> None:
        for worker in list(self._workers):
            if worker.job is not None:
                batch.results[worker.job.id] = {"id": worker.job.id, "status": "stopped", "message": "stopped before its end"}
                worker.kill()
                worker.job = None
                self._workers.remove(worker)

    def _handle_death(self, worker: PoolWorker, batch: _Batch, *, stopping: bool) -> None:
        # Waits for the process as well, so that `ending` knows the exit code.
        worker.kill()
        if worker in self._workers:
            self._workers.remove(worker)
        job, worker.job = worker.job, None
        if job is None:
            return
        # It may have died after its last write.
        stored = self._folder.result(job.id)
        if stored is not None:
            batch.results[job.id] = stored
        elif stopping:
            batch.results[job.id] = {"id": job.id, "status": "stopped", "message": "its process ended while stopping"}
        elif batch.attempts[job.id] < MAX_ATTEMPTS:
            # First in the queue: it goes on from its checkpoint, and the order of the others stays.
            batch.waiting.appendleft(job)
            return
        else:
            batch.results[job.id] = {
                "id": job.id,
                "kind": job.kind,
                "status": "failed",
                "message": f"Its process ended {worker.ending}, {MAX_ATTEMPTS} times. See {self._folder.path / 'logs'}.",
                "seconds": 0.0,
            }
            # Written down, so that a resumed run does not try a third time.
            write_json(self._folder.job(job.id) / "result.json", batch.results[job.id])
        batch.tell("end", job, batch.results[job.id])

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.leave()
        # One deadline for all, or a large pool of deaf workers would take seconds each.
        deadline = time.monotonic() + 1.0
        for worker in self._workers:
            worker.wait(max(0.05, deadline - time.monotonic()))
            worker.kill()
        self._workers.clear()
        self._on_close()


class InlinePool:
    """The same, one job after the other in this process: for debugging, and where processes cannot be started."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder

    def run(
        self, jobs: Sequence[Job], *, listener: Listener | None = None, stop: Callable[[], StopRequest | None] = lambda: None
    ) -> Results:
        """Run jobs; see :meth:`WorkerPool.run`."""
        results: Results = {}
        tell = listener or (lambda *_: None)
        for job in jobs:
            if stop() is not None and RunFolder(self._folder).result(job.id) is None:
                continue
            control = JobControl()

            def report(message: dict[str, Any], job: Job = job, control: JobControl = control) -> None:
                tell("progress", job, message)
                asked = stop()
                # `kill` cannot be obeyed here: there is no other process to end.
                if asked is not None:
                    control.stop = "finish" if asked == "finish" else "keep"

            control.report = report
            tell("start", job, {})
            results[job.id] = execute(job, self._folder, control)
            tell("end", job, results[job.id])
        return results

    def close(self) -> None:
        """Nothing to end."""


Pool = WorkerPool | InlinePool


def make_pool(run_folder: Path, workers: int, *, engine: Engine = "local") -> Pool:
    """Return a pool of ``workers`` processes; 0 runs everything in this process.

    Args:
        run_folder: Folder of the run.
        workers: Number of workers; with the engine ``"ray"``, 0 is as many as the cluster has cores.
        engine: ``"local"``: processes on this machine; ``"ray"``: actors of the Ray cluster that ``RAY_ADDRESS`` names, or of
            one that is started here.

    Raises:
        MissingDependencyError: If the engine is ``"ray"`` and Ray is not installed.
    """
    if engine == "ray":
        from graftwork.workflows.runs.ray_worker import ray_pool_parts

        size, start_worker, on_close = ray_pool_parts(workers)
        return WorkerPool(run_folder, size, start_worker=start_worker, on_close=on_close)
    return WorkerPool(run_folder, workers) if workers > 0 else InlinePool(run_folder)

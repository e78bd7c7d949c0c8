"""Dynamic batching: requests that arrive together run together, and every answer goes back to its question. No torch.

Requests wait in lanes. A lane serves one set of tasks of one sub-network: it has one ONNX Runtime session, one worker thread and
one queue.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, GraftworkError

__all__ = ["Answer", "Batcher", "PartRunner", "Runner", "run_as_one"]

Array = NDArray[Any]
Runner = Callable[[Sequence[Any]], Mapping[str, Array]]
"""Rows in, ``{task: array}`` with one row for each of them out."""
PartRunner = Callable[[Sequence[Sequence[Any]]], Sequence[Mapping[str, Array]]]
"""The rows of several requests in, what a :data:`Runner` returns for each of them out; the requests may ask for different things."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions of one request, and how they came about."""

    values: Mapping[str, Array]
    queue_seconds: float
    """From asking to the start of the batch."""
    model_seconds: float
    """Of the whole batch."""
    batch_rows: int


def run_as_one(runner: Runner) -> PartRunner:
    """Return what runs requests that all ask for the same, as one batch."""

    def run(parts: Sequence[Sequence[Any]]) -> list[Mapping[str, Array]]:
        # No copy for the usual single request.
        rows = parts[0] if len(parts) == 1 else [row for part in parts for row in part]
        values = runner(rows)
        wrong = {name: len(value) for name, value in values.items() if len(value) != len(rows)}
        if wrong:
            raise GraftworkError(f"The model answered {len(rows)} rows with {wrong}. Export it again.")
        found: list[Mapping[str, Array]] = []
        start = 0
        for part in parts:
            own = slice(start, start + len(part))
            start = own.stop
            found.append({name: value[own] for name, value in values.items()})
        return found

    return run


@dataclass(slots=True)
class _Job:
    rows: Sequence[Any]
    future: Future[Answer] = field(default_factory=Future)
    asked_at: float = field(default_factory=time.perf_counter)


class _Lane:
    """One queue and the thread that empties it."""

    def __init__(
        self, open_runner: Callable[[], PartRunner], max_rows: int, max_wait: float, on_batch: Callable[[int, float], None]
    ):
        self._open_runner = open_runner
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._on_batch = on_batch
        self._jobs: collections.deque[_Job] = collections.deque()
        self._waiting_rows = 0
        self._changed = threading.Condition()
        self._closed = False
        self.is_running = False
        self._thread = threading.Thread(target=self._work, name="graftwork-lane", daemon=True)
        self._thread.start()

    def put(self, job: _Job) -> bool:
        """Queue a job; False if the lane is closed."""
        with self._changed:
            if self._closed:
                return False
            self._jobs.append(job)
            self._waiting_rows += len(job.rows)
            self._changed.notify()
            return True

    @property
    def num_waiting(self) -> int:
        return len(self._jobs)

    @property
    def is_idle(self) -> bool:
        return not self._jobs and not self.is_running

    def close(self) -> None:
        """Take no more jobs; those that wait are still done."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _next_batch(self) -> list[_Job]:
        """Wait for jobs and return those of one batch; an empty list means that the lane is closed and empty."""
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return []
                self._changed.wait()
            # From the first question on: nobody waits longer than `max_wait` for others.
            end = self._jobs[0].asked_at + self._max_wait
            while self._waiting_rows < self._max_rows and not self._closed:
                left = end - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[_Job] = []
            size = 0
            # The first job goes in however large it is; parts larger than a batch were cut before.
            while self._jobs and (not batch or size + len(self._jobs[0].rows) <= self._max_rows):
                job = self._jobs.popleft()
                self._waiting_rows -= len(job.rows)
                if job.future.set_running_or_notify_cancel():  # nobody waits any more for one that is cancelled
                    batch.append(job)
                    size += len(job.rows)
            # Under the lock: between taking and running, the lane must not look idle.
            self.is_running = bool(batch)
            return batch

    def _work(self) -> None:
        runner: PartRunner | None = None
        while True:
            batch = self._next_batch()
            if not batch:
                if self._closed and not self._jobs:
                    return
                # All of these jobs were cancelled; there may be others.
                continue
            try:
                # In this thread, and at the first batch: opening a session takes long. A failure is tried again with the next
                # batch.
                runner = runner or self._open_runner()
            except Exception as error:  # the lane cannot work; those who asked must know
                for job in batch:
                    job.future.set_exception(error)
            else:
                self._run(runner, batch)
            self.is_running = False

    def _run(self, runner: PartRunner, batch: list[_Job]) -> None:
        size = sum(len(job.rows) for job in batch)
        started = time.perf_counter()
        try:
            found = runner([job.rows for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:  # one request must not spoil the others
                self._run(runner, [job])
            return
        seconds = time.perf_counter() - started
        self._on_batch(size, seconds)
        for job, own in zip(batch, found, strict=True):
            job.future.set_result(Answer(own, started - job.asked_at, seconds, size))


class Batcher:
    """Lanes by key, opened when they are first asked.

    Args:
        open_runner: Makes what runs a lane's batches; called in the lane's thread.
        by_part: Whether that is a :data:`PartRunner`, for lanes whose requests ask for different things.
        max_batch: Most rows that run together, at least 1. Requests with more are cut into parts.
        max_wait: Seconds that the first request of a batch waits for others, at least 0.
        max_lanes: Lanes that stay open; beyond, the idle one that was not asked for longest is closed.
        on_batch: Called with rows and seconds of every batch, in a lane's thread.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        open_runner: Callable[[Any], Any],
        *,
        by_part: bool = False,
        max_batch: int = 64,
        max_wait: float = 0.002,
        max_lanes: int = 32,
        on_batch: Callable[[Any, int, float], None] = lambda key, rows, seconds: None,
    ) -> None:
        if max_batch < 1:
            raise ConfigError(f"The largest batch must be at least 1 row; got {max_batch}.")
        if not 0 <= max_wait <= 10:
            raise ConfigError(f"The time to wait for a batch must be from 0 to 10 s; got {max_wait:g} s.")
        if max_lanes < 1:
            raise ConfigError(f"`max_lanes` must be at least 1; got {max_lanes}.")
        self.max_batch = max_batch
        self.max_wait = max_wait
        self.max_lanes = max_lanes
        self._open_runner = open_runner if by_part else lambda key: run_as_one(open_runner(key))
        self._on_batch = on_batch
        self._retired: list[_Lane] = []
        self._lanes: collections.OrderedDict[Hashable, _Lane] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, key: Hashable, rows: Sequence[Any]) -> list[Future[Answer]]:
        """Queue rows; the answers of the returned futures, one after the other, are those of the rows in order.

        Raises:
            GraftworkError: If the batcher is closed.
        """
        parts = [rows[start : start + self.max_batch] for start in range(0, len(rows), self.max_batch)]
        jobs = [_Job(part) for part in parts]
        with self._lock:
            if self._closed:
                raise GraftworkError("The server is stopping. Ask again when it has started anew.")
            # Under the lock that closes lanes, so the lane is open.
            lane = self._lane(key)
            for job in jobs:
                lane.put(job)
        return [job.future for job in jobs]

    def _lane(self, key: Hashable) -> _Lane:
        if key in self._lanes:
            self._lanes.move_to_end(key)
            return self._lanes[key]
        if len(self._lanes) >= self.max_lanes:
            # If none is idle the oldest goes; it finishes what waits there.
            idle = next((name for name, lane in self._lanes.items() if lane.is_idle), next(iter(self._lanes)))
            retired = self._lanes.pop(idle)
            retired.close()
            # Retired lanes that still work are remembered, so that `close` waits for them.
            self._retired = [lane for lane in (*self._retired, retired) if not lane.is_idle]
        self._lanes[key] = _Lane(
            lambda: self._open_runner(key),
            self.max_batch,
            self.max_wait,
            lambda rows, seconds: self._on_batch(key, rows, seconds),
        )
        return self._lanes[key]

    @property
    def num_lanes(self) -> int:
        """Open lanes."""
        return len(self._lanes)

    @property
    def num_waiting(self) -> int:
        """Requests, or parts of large ones, that no batch has taken yet."""
        with self._lock:
            return sum(lane.num_waiting for lane in (*self._retired, *self._lanes.values()))

    def close(self, timeout: float | None = None) -> None:
        """Take no more rows, finish those that were taken, and end all threads."""
        with self._lock:
            self._closed = True
            lanes = [*self._retired, *self._lanes.values()]
        for lane in lanes:
            # All first, so that they finish side by side.
            lane.close()
        for lane in lanes:
            lane.join(timeout)

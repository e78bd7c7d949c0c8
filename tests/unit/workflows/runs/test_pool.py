"""A pool whose workers die: a job has two tries, the others go on, and no call waits for a worker that is gone."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.pool import WorkerPool
from graftwork.workflows.runs.pool_worker import Answers, PoolWorker, StopRequest


@dataclass(frozen=True)
class SmallJob:
    """What a pool asks of a job."""

    id: str
    kind: str = "small"
    goes_on_from: str | None = None


Does = Callable[["Puppet", SmallJob], None]


class Puppet(PoolWorker):
    """A worker that answers, or dies, at once."""

    def __init__(self, number: int, does: Does, answers: Answers) -> None:
        self.number, self.does, self.answers = number, does, answers

    def start(self, job: Job) -> None:
        self.does(self, cast(SmallJob, job))

    def done(self, job: SmallJob) -> None:
        self.answers.put((self, {"type": "done", "id": job.id, "result": {"id": job.id, "status": "ok", "by": self.number}}))

    def dies(self) -> None:
        self.answers.put((self, None))

    def stop(self, job_id: str, mode: StopRequest) -> None: ...

    def leave(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, seconds: float) -> None: ...

    @property
    def ending(self) -> str:
        return "by signal 9"


def run(folder: Path, does: Does, *names: str, size: int = 1) -> Mapping[str, dict[str, Any]]:
    pool = WorkerPool(folder, size, start_worker=lambda number, _, __, answers: Puppet(number, does, answers))
    return pool.run([cast(Job, SmallJob(name)) for name in names])


def test_a_job_whose_worker_dies_has_one_more_try_before_the_others(tmp_path: Path) -> None:
    order: list[str] = []

    def does(worker: Puppet, job: SmallJob) -> None:
        order.append(job.id)
        worker.dies() if order.count("a") == 1 else worker.done(job)

    found = run(tmp_path, does, "a", "b", "c")
    assert order == ["a", "a", "b", "c"]
    assert {name: result["by"] for name, result in found.items()} == {"a": 1, "b": 1, "c": 1}


def test_after_two_deaths_a_job_has_failed_for_good(tmp_path: Path) -> None:
    def does(worker: Puppet, job: SmallJob) -> None:
        worker.dies() if job.id == "bad" else worker.done(job)

    found = run(tmp_path, does, "bad", "good", size=2)
    assert found["good"]["status"] == "ok"
    assert found["bad"]["status"] == "failed"
    assert "ended by signal 9, 2 times" in found["bad"]["message"]
    assert json.loads((tmp_path / "jobs" / "bad" / "result.json").read_text()) == found["bad"]


def test_a_job_that_is_given_to_a_worker_that_has_just_died_is_done(tmp_path: Path) -> None:
    """Its end is not heard yet, and what is said to it is lost."""

    def does(worker: Puppet, job: SmallJob) -> None:
        if worker.number == 0 and job.id == "b":
            return
        worker.done(job)
        if worker.number == 0:
            worker.dies()

    found = run(tmp_path, does, "a", "b")
    assert {name: result["by"] for name, result in found.items()} == {"a": 0, "b": 1}


def test_what_was_written_before_the_death_counts(tmp_path: Path) -> None:
    def does(worker: Puppet, job: SmallJob) -> None:
        (tmp_path / "jobs" / job.id).mkdir(parents=True)
        (tmp_path / "jobs" / job.id / "result.json").write_text('{"id": "a", "status": "ok"}')
        worker.dies()

    assert run(tmp_path, does, "a") == {"a": {"id": "a", "status": "ok"}}


@pytest.mark.parametrize("asked", ["keep", "finish"])
def test_a_death_while_stopping_is_no_failure(tmp_path: Path, asked: StopRequest) -> None:
    stop: queue.Queue[StopRequest] = queue.Queue()

    class Dies(Puppet):
        def stop(self, job_id: str, mode: StopRequest) -> None:
            self.dies()

    pool = WorkerPool(tmp_path, 1, start_worker=lambda number, _, __, answers: Dies(number, lambda *_: stop.put(asked), answers))
    found = pool.run([cast(Job, SmallJob("a"))], stop=lambda: stop.queue[0] if stop.queue else None)
    assert found["a"]["status"] == "stopped"
    assert not (tmp_path / "jobs" / "a" / "result.json").exists(), "a resume tries it again"

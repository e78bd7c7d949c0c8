"""Learners that stay in the memory of a worker between two jobs, and which worker gets the job that goes on."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.records import Component, Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.store import load_suite, save_suite
from graftwork.data.suites.generated import conflicting_tasks
from graftwork.workflows.runs import warm
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import Job, RunFacts
from graftwork.workflows.runs.job_data import read_predictions
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.pool import WorkerPool
from graftwork.workflows.runs.pool_worker import Answers, PoolWorker
from graftwork.workflows.runs.run_folder import RunFolder

TREES = Plan(
    name="trees",
    title="trees",
    role="independent",
    modalities=("table",),
    stages=(TrainStage(learner=Component("graftwork.domains.tabular.lightgbm:LightGBMLearner")),),
)


def race(folder: Path, horizons: Sequence[int], *, forget: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run a rung and a final that goes on with it; return both results, and the predictions of the final."""
    run = RunFolder(folder)
    save_suite(conflicting_tasks(rows=150, seed=3), run.suite)
    common: dict[str, Any] = {"plan": TREES, "facts": RunFacts(cache=str(folder / "cache")), "seed": 1}
    results = [execute(TrainJob(id="rung1", until=6, max_steps=horizons[0], **common), folder)]
    assert (run.job("rung1").resolve() in warm._KEPT) is True
    if forget:
        warm._KEPT.clear()
    final = TrainJob(id="final", until=15, max_steps=horizons[1], continues="rung1", predict=("test",), **common)
    results.append(execute(final, folder))
    assert [result["status"] for result in results] == ["ok", "ok"]
    return results, read_predictions(run.job("final") / "predictions.safetensors", load_suite(run.suite))


@pytest.mark.parametrize("horizons", [(20, 20), (20, 15)])
def test_going_on_in_memory_is_going_on_from_the_checkpoint(tmp_path: Path, horizons: Sequence[int]) -> None:
    kept, answers = race(tmp_path / "kept", horizons, forget=False)
    loaded, again = race(tmp_path / "loaded", horizons, forget=True)
    assert [result["began"] for result in kept] == [result["began"] for result in loaded] == [0, 6]
    assert [result["validation"] for result in kept] == [result["validation"] for result in loaded]
    for task, values in answers["test"].items():
        np.testing.assert_array_equal(again["test"][task], values)


def test_a_learner_of_another_seed_is_not_taken(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    suite = conflicting_tasks(rows=150, seed=3)
    save_suite(suite, run.suite)
    facts = RunFacts(cache=str(tmp_path / "cache"))
    common: dict[str, Any] = {"plan": TREES, "facts": facts, "until": 3, "max_steps": 9}
    execute(TrainJob(id="rung1", seed=1, **common), tmp_path)
    other = TrainJob(id="final", seed=2, **common)
    assert warm.take_warm(other.learner(suite), run.job("rung1")) is None
    assert not warm._KEPT, "nobody else can use it"


class Worker(PoolWorker):
    """Answers at once, and notes what it was given."""

    def __init__(self, answers: Answers, log: list[tuple[str, str]], name: str) -> None:
        self.answers, self.log, self.name = answers, log, name

    def start(self, job: Job) -> None:
        self.log.append((self.name, job.id))
        self.answers.put((self, {"type": "done", "id": job.id, "result": {"status": "ok"}}))

    def stop(self, job_id: str, mode: str) -> None: ...
    def leave(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, seconds: float) -> None: ...

    @property
    def ending(self) -> str:
        return ""


def test_a_job_goes_to_the_worker_that_did_the_one_before(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []

    def start(number: int, folder: Path, threads: int, answers: queue.Queue[Any]) -> PoolWorker:
        return Worker(answers, log, f"w{number}")

    pool = WorkerPool(tmp_path, 2, start_worker=start)
    facts = RunFacts(cache="")

    def jobs(rung: int, names: str) -> list[TrainJob]:
        before = {name: f"rung{rung - 1}-{name}" if rung > 1 else None for name in names}
        return [
            TrainJob(id=f"rung{rung}-{name}", plan=TREES, facts=facts, until=1, max_steps=9, continues=before[name])
            for name in names
        ]

    pool.run(jobs(1, "ab"))
    first = {job: worker for worker, job in log}
    assert first == {"rung1-a": "w0", "rung1-b": "w1"}
    # In the other order: whoever is idle first would take the wrong one.
    pool.run(jobs(2, "ba"))
    assert log[2:] == [("w1", "rung2-b"), ("w0", "rung2-a")]
    pool.close()

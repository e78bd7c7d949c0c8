"""Jobs on a local Ray cluster of two workers give what processes give; without Ray the error says what to install."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import GraftworkError, MissingDependencyError, StorageError
from graftwork.core.optional import has
from graftwork.workflows.compare import CompareRun, compare
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.pool import make_pool
from graftwork.workflows.runs.ray_worker import RemoteExecutor, pack_folders, unpack_folders

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")
needs_ray = pytest.mark.skipif(not has("ray"), reason='Ray is not installed: pip install "graftwork[ray]"')


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A local cluster with two cores, shared by the tests of this module."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def run(out: Path, *more: Any, **settings: Any) -> CompareRun:
    plans = ["none", linear_plan("alone", "reference", rate=0.03), linear_plan("fast", "joint", rate=0.3), *more]
    return compare(linear_suite(), plans=plans, out=out, **{"steps": 16, "seeds": 2, "backbone": "none", **settings})


def numbers(found: CompareRun) -> Any:
    return json.loads(json.dumps({key: found.result[key] for key in ("leaderboard", "comparisons", "overall", "verdict")}))


@needs_ray
@pytest.mark.slow
def test_a_cluster_gives_the_numbers_of_one_process(cluster: Any, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    found = run(tmp_path / "ray", engine="ray", workers=2, on_event=events.append)
    assert numbers(found) == numbers(run(tmp_path / "inline", workers=0))
    assert sum(event["event"] == "job-end" and event["status"] == "ok" for event in events) == 4
    assert cluster.is_initialized(), "a cluster that was there before stays"


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_costs_only_its_plan(cluster: Any, tmp_path: Path) -> None:
    deadly = linear_plan("deadly", "joint", fail="die", fail_at=7)
    found = run(tmp_path / "run", deadly, engine="ray", workers=2, seeds=1)
    last = found.rows[-1]
    assert (last["plan"], last["status"]) == ("deadly", "failed")
    assert "ended on the Ray cluster" in last["message"]
    assert found.rows[0]["plan"] == "fast"


@needs_ray
@pytest.mark.slow
def test_a_running_job_is_told_to_stop_and_keeps_its_checkpoint(cluster: Any, tmp_path: Path) -> None:
    from graftwork.data.store import save_suite

    save_suite(linear_suite(), tmp_path / "suite")
    facts = RunFacts(cache=str(tmp_path / "cache"))
    job = TrainJob(id="crawl", plan=linear_plan("crawl", "joint", delay=0.05), facts=facts, until=2000, max_steps=2000)
    pool = make_pool(tmp_path, 1, engine="ray")
    seen: list[str] = []

    def listen(event: str, job: Any, details: Any) -> None:
        seen.append(event)

    try:
        answers = pool.run([job], listener=listen, stop=lambda: "keep" if "progress" in seen else None)
    finally:
        pool.close()
    assert answers["crawl"]["status"] == "stopped"
    assert 0 < answers["crawl"]["steps"] < 2000
    assert json.loads((tmp_path / "jobs" / "crawl" / "checkpoint.json").read_text())["step"] == answers["crawl"]["steps"]


def test_a_worker_that_does_not_see_the_folder_gets_and_returns_files(tmp_path: Path) -> None:
    """The actor's class in this process: a wrong token is what another machine looks like."""
    from graftwork.data.store import save_suite

    home = tmp_path / "home"
    save_suite(linear_suite(), home / "suite")
    hello = {"run_folder": str(home), "token": "of another machine", "path": sys.path, "allowed": []}
    executor = RemoteExecutor(json.dumps(hello))
    assert not executor.sees_folder()
    executor.receive(pack_folders(home, ["suite"]))
    facts = RunFacts(cache=str(tmp_path / "cache"))
    job = TrainJob(id="fast", plan=linear_plan("fast", "joint"), facts=facts, until=4, max_steps=4, predict=("test",))
    text, files = executor.execute(json.dumps(job.to_json()))
    answer = json.loads(text)
    assert answer["type"] == "done"
    assert answer["result"]["status"] == "ok"
    assert not (home / "jobs").exists()
    unpack_folders(files, home)
    assert json.loads((home / "jobs" / "fast" / "result.json").read_text()) == answer["result"]
    assert (home / "jobs" / "fast" / "predictions.safetensors").exists()
    assert all(json.loads(line)["type"] == "progress" for line in executor.poll())
    executor.close()


def test_a_stop_that_comes_before_its_job_is_not_lost(tmp_path: Path) -> None:
    from graftwork.data.store import save_suite

    save_suite(linear_suite(), tmp_path / "suite")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "engine-token").write_text("same")
    executor = RemoteExecutor(json.dumps({"run_folder": str(tmp_path), "token": "same", "path": [], "allowed": []}))
    assert executor.sees_folder()
    executor.stop("fast", "keep")
    facts = RunFacts(cache=str(tmp_path / "cache"))
    job = TrainJob(id="fast", plan=linear_plan("fast", "joint"), facts=facts, until=4, max_steps=4)
    text, files = executor.execute(json.dumps(job.to_json()))
    assert json.loads(text)["result"]["status"] == "stopped"
    assert files == b""


def test_a_message_that_is_no_job_is_a_failed_answer_and_writes_nothing(tmp_path: Path) -> None:
    executor = RemoteExecutor(json.dumps({"run_folder": str(tmp_path), "token": "", "path": [], "allowed": []}))
    text, files = executor.execute(json.dumps({"kind": "dance", "id": "x"}))
    result = json.loads(text)["result"]
    assert (result["status"], result["error"]) == ("failed", "ConfigError")
    assert "There is no job of kind 'dance'" in result["message"]
    assert files == b""
    executor.close()


def test_files_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    import io
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("../escaped.txt", "x")
    with pytest.raises(StorageError, match="lies outside"):
        unpack_folders(target.getvalue(), tmp_path / "run")
    assert not (tmp_path / "escaped.txt").exists()


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_ray(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "ray" or name.startswith("ray."):
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *arguments, **options)

    monkeypatch.setitem(sys.modules, "ray", None)  # importing it now raises ModuleNotFoundError
    monkeypatch.setattr(builtins, "__import__", no_ray)
    with pytest.raises(
        MissingDependencyError, match=r'The engine ray needs the package "ray"\. Install it with: pip install "graftwork\[ray\]"'
    ):
        run(tmp_path / "run", engine="ray")
    assert not (tmp_path / "run").exists()


@needs_ray
def test_a_cluster_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def fail(**settings: Any) -> None:
        raise OSError("AF_UNIX path length cannot exceed 107 bytes: /a/long/path\nand more")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(
        GraftworkError, match=r"started: AF_UNIX path length cannot exceed 107 bytes: /a/long/path\. Check RAY_ADDRESS"
    ):
        make_pool(tmp_path, 1, engine="ray")

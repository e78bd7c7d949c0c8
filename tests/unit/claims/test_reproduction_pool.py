"""Worker processes of reproductions and the end of their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from graftwork.claims import reproduction_pool
from graftwork.claims.measuring import _seeds_apart
from graftwork.claims.reproduction_job import Job
from graftwork.core.errors import GraftworkError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

RECIPE = "import os, pathlib, time; pathlib.Path({mark!r}).write_text(str(os.getpid())); time.sleep(2000)"
PARENT = """
import sys
from graftwork.claims.reproduction_job import Job
from graftwork.claims.reproduction_pool import run_jobs

if __name__ == "__main__":
    job = Job(recipe="sleepy", slug="x", arm="a", seed=0, smoke=True, work="work")
    run_jobs([job], workers=1, on_progress=print, on_done=print)
"""


def test_a_worker_in_the_middle_of_a_job_ends_with_a_killed_parent(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "sleepy.py").write_text(RECIPE.format(mark=str(mark)))
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 600
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    worker = int(mark.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists(), "it would go on writing into the folder of a run that is taken up again"


def test_a_worker_that_is_killed_while_it_starts_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has not read its job then, and the system reports the pipe as reset."""
    send = reproduction_pool._send

    def send_and_kill(pipe: Connection, job: Job | None) -> None:
        send(pipe, job)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join()

    monkeypatch.setattr(reproduction_pool, "_send", send_and_kill)
    job = Job(recipe="sleepy", slug="x", arm="a", seed=7, smoke=True, work=str(tmp_path))
    with pytest.raises(GraftworkError, match=r"arm 'a', seed 7 ended without a result.*--resume"):
        reproduction_pool.run_jobs([job], workers=1, on_progress=print, on_done=print)


def test_what_is_said_to_a_worker_that_is_gone_is_lost_without_an_error() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with ours:
        reproduction_pool._send(ours, None)
        assert ours.poll(), "its end is there to be heard"


def test_processes_take_seeds_apart() -> None:
    """Arms of one seed wait for what they share, so that the first arm of every seed comes before the second one of any."""
    jobs = [Job(recipe="r", slug="s", arm=arm, seed=seed, smoke=True, work="w") for seed in (3, 1, 2) for arm in ("a", "b")]
    found = [(job.arm, job.seed) for job in _seeds_apart(jobs)]
    assert found == [("a", 3), ("a", 1), ("a", 2), ("b", 3), ("b", 1), ("b", 2)]
    assert [(job.arm, job.seed) for job in _seeds_apart(jobs[1:])] == [("b", 3), ("a", 1), ("a", 2), ("b", 1), ("b", 2)]

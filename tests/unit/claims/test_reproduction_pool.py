"""Worker processes of reproductions and the end of their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

RECIPE = "import os, pathlib, time; pathlib.Path({mark!r}).write_text(str(os.getpid())); time.sleep(100)"
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
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    worker = int(mark.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists(), "it would go on writing into the folder of a run that is taken up again"

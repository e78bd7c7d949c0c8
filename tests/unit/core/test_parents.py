from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent is gone")

CHILD = "import os, sys, time; from graftwork.core.parents import die_with_parent; die_with_parent(int(sys.argv[1]))"


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_process_ends_with_the_one_that_started_it() -> None:
    child = f"{CHILD}; print(os.getpid(), flush=True); time.sleep(2000)"
    code = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        assert runs(number)
        parent.kill()
    deadline = time.monotonic() + 300
    while runs(number) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(number)


def test_a_process_whose_parent_is_gone_already_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", f"{CHILD}; print('here')", str(os.getpid() + 1)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")

"""Commands as processes: started with a folder for their temporary files and a tag, by which every process of theirs is found."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TIMEOUT", "Command", "end_all", "is_calm", "orphans", "start"]

TIMEOUT = 1_800.0
TURN = 300.0
"""Seconds in which who is late must have computed something."""
LEAST_WORK = 1.0
"""Seconds of computing in a turn that waiting and looking around do not make up."""
MOST_TURNS = 20
_TAG = "GRAFTWORK_TORTURE_TAG"
_WORKERS = ("graftwork.workflows.runs.worker", "multiprocessing.spawn import spawn_main", "ray::RemoteExecutor")
"""Words in the command lines of workers."""
_INJECT = Path(__file__).parent / "inject"


@dataclass
class Command:
    """A command that runs, or has run."""

    process: subprocess.Popen[bytes]
    tag: str
    log: Path
    """Gets what it prints, of all commands of a round."""
    begin: int = field(default=0)
    """Length of the log before it."""

    def wait(self, seconds: float = TIMEOUT) -> int | None:
        """Return its exit code, or None (and kill it and all it has started) if it does not end in time and is stuck.

        Who is slow, on a machine that has no time for it, goes on: its processes compute, or others take their place. Those that
        are stuck write into their logs where they stand.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        before, used = self._work()
        for _ in range(MOST_TURNS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(TURN)
            now, more = self._work()
            if now == before and more - used < LEAST_WORK:
                break
            before, used = now, more
        self._say_where()
        self.kill()
        return None

    def _work(self) -> tuple[list[int], float]:
        """Return its processes, and the seconds that they have computed."""
        found, seconds = self.processes(), 0.0
        for process in found:
            with contextlib.suppress(OSError, ValueError, IndexError):
                facts = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
                seconds += (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
        return sorted(found), seconds

    def _say_where(self) -> None:
        # The hook in `inject` answers with the stack of every thread.
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGUSR2)
        time.sleep(3.0)

    def kill_after(self, seconds: float) -> bool:
        """Kill its process after some seconds; return whether it ran so long."""
        try:
            self.process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            self.process.kill()
            return True

    def processes(self) -> list[int]:
        """Return its processes."""
        return _tagged(self.tag)

    def workers(self) -> list[int]:
        """Return the processes that do its jobs."""
        found = (process for process in _tagged(self.tag) if process != self.process.pid)
        return [process for process in found if any(mark in _words(process) for mark in _WORKERS)]

    def kill_worker_after(self, seconds: float, rng: random.Random) -> bool:
        """Kill one of its workers alone, some seconds after there is one; return whether there was one."""
        while self.process.poll() is None and not self.workers():
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        for process in rng.sample(found := self.workers(), len(found)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                return True
        return False

    def kill(self) -> None:
        """End it and all it has started."""
        for process in (self.process.pid, *_tagged(self.tag)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_bytes()[self.begin :].decode("utf-8", "replace") if self.log.exists() else ""


def start(
    words: Sequence[str | Path],
    log: Path,
    temporary: Path,
    *,
    spec: Mapping[str, Any] | None = None,
    environment: Mapping[str, str | None] | None = None,
    stdout: int | None = None,
    before: Sequence[str] = (),
    **more: Any,
) -> Command:
    """Start ``graftwork``.

    Args:
        words: What follows ``graftwork``.
        log: Gets its output and errors.
        temporary: Folder for temporary files, with a folder ``cache`` in it.
        spec: For the hook in ``inject``.
        environment: Variables besides those of this process; None takes one away.
        before: Words in front of the command.
        stdout: Where the output goes in place of the log.
        more: For :class:`subprocess.Popen`.
    """
    tag = uuid.uuid4().hex
    path = [str(_INJECT), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)]
    values: dict[str, str | None] = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "GRAFTWORK_CACHE": str(temporary / "cache"),
        "PYTHONPATH": os.pathsep.join(path),
        # Paths of sockets must be short.
        "RAY_TMPDIR": _short_folder(),
        # Ray asks the network for nothing then.
        "RAY_USAGE_STATS_ENABLED": "0",
        "GRAFTWORK_TORTURE": json.dumps(spec) if spec else None,
        _TAG: tag,
        **(environment or {}),
    }
    begin = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "graftwork.cli.main", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=out if stdout is None else stdout,
            stderr=out,
            env={key: value for key, value in values.items() if value is not None},
            start_new_session=True,
            **more,
        )
    command = Command(process, tag, log, begin)
    _started.append(command)
    return command


_started: list[Command] = []


def end_all() -> None:
    """Kill what was started and still runs."""
    for command in _started:
        if command.process.poll() is None:
            command.kill()


@functools.cache
def _short_folder() -> str:
    folder = tempfile.mkdtemp(prefix="gw-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _tagged(tag: str) -> list[int]:
    """Return the processes that a command started, whatever became of their parents and sessions."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if (
                tag.encode() in path.joinpath("environ").read_bytes()
                and path.joinpath("stat").read_text().rpartition(") ")[2][0] != "Z"
            ):
                found.append(int(path.name))
    return found


def orphans(command: Command, seconds: float = 15.0) -> list[str]:
    """Return the processes of a command that are still there some seconds after it has ended; they are killed."""
    deadline = time.monotonic() + seconds
    while found := _tagged(command.tag):
        if time.monotonic() > deadline:
            names = [_words(process) for process in found]
            command.kill()
            return [f"processes outlive the command: {names}"]
        time.sleep(0.05)
    return []


def _words(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return str(process)


def is_calm(said: str) -> bool:
    """Return whether a command that failed has said why, and does not think that it is a bug of its own."""
    return bool(said.strip()) and "Traceback (most recent call last)" not in said and "This is a bug" not in said

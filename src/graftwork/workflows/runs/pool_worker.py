"""What the pool sees of a worker, and the worker that is a process on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from graftwork.core.components import allowed_packages
from graftwork.core.files import open_to_append
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.workflows.runs.job import Job

__all__ = ["Answers", "PoolWorker", "ProcessWorker", "StartWorker", "StopRequest"]

StopRequest = Literal["keep", "finish", "kill"]

_PACKAGE = PACKAGE_FOLDER.parent
"""Folder from which this process imported graftwork: workers import the same."""


class PoolWorker(ABC):
    """Takes one job at a time and answers into a queue.

    Answers: ``progress``, ``done`` (with ``result``), ``storage`` (the disk is full), and None when it is gone.
    """

    job: Job | None = None
    """What it works on."""
    asked_to_stop: StopRequest | None = None

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a job. What is said to a worker that is gone is lost without an error, here and below."""

    @abstractmethod
    def stop(self, job_id: str, mode: StopRequest) -> None:
        """Ask for the end of a job, if it still works on that one."""

    @abstractmethod
    def leave(self) -> None:
        """Ask an idle worker to end."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; harmless if it is gone."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait until it has ended, at most ``seconds``."""

    @property
    @abstractmethod
    def ending(self) -> str:
        """How it ended, in words that follow "ended"."""


Answers = queue.Queue[tuple[PoolWorker, dict[str, Any] | None]]
StartWorker = Callable[[int, Path, int, Answers], PoolWorker]
"""Called with number, run folder, threads and the queue of answers."""


class ProcessWorker(PoolWorker):
    """One process and the thread that reads its answers."""

    def __init__(self, number: int, run_folder: Path, threads: int, answers: Answers) -> None:
        # In the environment: libraries read these when they are loaded, before any code of ours runs.
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(threads)
        )
        path = [str(_PACKAGE), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)]
        with open_to_append(run_folder / "logs" / f"worker-{number}.log") as log:
            self.process = subprocess.Popen(
                # -P: nothing is imported from the working folder
                [sys.executable, "-P", "-m", "graftwork.workflows.runs.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **limits, "PYTHONPATH": os.pathsep.join(path)},
                # Ctrl-C in a terminal goes to the whole process group; workers must hear of it from the pool only.
                start_new_session=True,
                text=True,
                encoding="utf-8",
            )
        hello = {"parent": os.getpid(), "path": sys.path, "run_folder": str(run_folder), "allowed": allowed_packages()}
        self.send(hello)
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()

    def _read(self, answers: Answers) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                answers.put((self, json.loads(line)))
        # The end of the output is how a death is noticed, however it came.
        answers.put((self, None))

    def start(self, job: Job) -> None:
        """Write the job to its standard input."""
        self.send({"type": "job", "job": job.to_json()})

    def stop(self, job_id: str, mode: StopRequest) -> None:
        """Write the request to its standard input."""
        self.send({"type": "stop", "id": job_id, "mode": mode})

    def leave(self) -> None:
        """Write the request to its standard input."""
        self.send({"type": "exit"})

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a JSON line to its standard input: ``{"type": "job", "job"}``, ``{"type": "stop", "id", "mode"}``,
        ``{"type": "exit"}``."""
        with contextlib.suppress(OSError, ValueError):  # a dead worker is found by its end of output
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):  # a frozen machine: it goes when it wakes
            self.process.wait(timeout=5)
            if self.process.stdin is not None:
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def ending(self) -> str:
        """Say by which signal or with which exit code it ended."""
        code = self.process.returncode
        return f"by signal {-code}, perhaps for lack of memory" if code is not None and code < 0 else f"with exit code {code}"

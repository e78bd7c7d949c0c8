"""A worker process: reads jobs as JSON lines on its standard input, answers as JSON lines on its standard output.

Nothing is pickled, the caller's main module is not imported again, and a worker never outlives its parent: the input's end, and
on Linux the parent's death signal, end it at once, so that a killed run leaves nobody behind who writes into its folder.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import IO, Any

from graftwork.core.parents import die_with_parent

__all__ = ["main"]


class _Current:
    """The job that runs, and stops for those that were sent and do not run yet. Two threads use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: Any = None
        self._id = ""
        self._waiting: dict[str, str | None] = {}

    def expect(self, job_id: str) -> None:
        """Note that a job was sent."""
        with self._lock:
            self._waiting[job_id] = None

    def stop(self, job_id: str, mode: str) -> None:
        """Stop a job that runs, or that was sent and is about to. One that has ended must not stop the next one."""
        with self._lock:
            if self._id == job_id:
                self._control.stop = mode
            elif job_id in self._waiting:
                self._waiting[job_id] = mode

    def begin(self, job_id: str, control: Any) -> None:
        """Note that a job runs, and hand it the stop that came before."""
        with self._lock:
            self._id, self._control = job_id, control
            control.stop = self._waiting.pop(job_id, None)

    def end(self) -> None:
        """Note that no job runs."""
        with self._lock:
            self._id, self._control = "", None


def _listen(source: IO[str], jobs: queue.Queue[dict[str, Any]], current: _Current) -> None:
    """Read commands for ever; runs in a thread of its own, so that a stop arrives while a job trains."""
    for line in source:
        message = json.loads(line)
        if message["type"] == "stop":
            current.stop(message["id"], message["mode"])
            continue
        if isinstance(message.get("job"), dict):
            current.expect(str(message["job"].get("id")))
        jobs.put(message)
    # The input ends when the parent is gone, also where there is no death signal.
    os._exit(1)


def main() -> None:
    """Serve jobs until told to exit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to the worker's log, not into the answers
    hello = json.loads(sys.stdin.readline())
    die_with_parent(hello["parent"])
    # The caller's path in its order: components are found as the caller found them.
    sys.path[:] = hello["path"]
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    current = _Current()
    threading.Thread(target=_listen, args=(sys.stdin, jobs, current), daemon=True).start()

    from graftwork.core.components import allow_components
    from graftwork.core.errors import GraftworkError
    from graftwork.workflows.runs.control import JobControl
    from graftwork.workflows.runs.execution import answer, refusal
    from graftwork.workflows.runs.jobs import read_job

    allow_components(*hello["allowed"])
    while True:
        message = jobs.get()
        if message["type"] == "exit":
            answers.flush()
            os._exit(0)
        try:
            job = read_job(message.get("job"))
        except GraftworkError as error:
            send(refusal(message.get("job"), error))
            continue
        control = JobControl(report=send)
        current.begin(job.id, control)
        said = answer(job, hello["run_folder"], control)
        # First: once the answer is out, a stop may be meant for a later try of the same job.
        current.end()
        send(said)


if __name__ == "__main__":
    main()

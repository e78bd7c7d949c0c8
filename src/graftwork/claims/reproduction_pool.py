"""Worker processes for reproductions: each takes one job after the other, and ends when its parent is gone, however that
happened."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from graftwork.claims.reproduction_job import Job, JobResult, read_result, run_job
from graftwork.core.errors import GraftworkError
from graftwork.core.parents import die_with_parent

__all__ = ["run_jobs"]

OnProgress = Callable[[Job, float, str], None]
OnDone = Callable[[Job, JobResult], None]


def run_jobs(jobs: Sequence[Job], *, workers: int, on_progress: OnProgress, on_done: OnDone) -> None:
    """Run all jobs, in order of starting; results are stored by the jobs themselves.

    Args:
        jobs: What to run.
        workers: Number of processes; 0 runs everything in this one.
        on_progress: Called with the job, a fraction in [0, 1] and a few words.
        on_done: Called with every finished job and its result.

    Raises:
        GraftworkError: If a job fails; those that finished before stay finished.
    """
    if workers < 1:
        for job in jobs:
            on_done(job, run_job(job, lambda fraction, text, job=job: on_progress(job, fraction, text)))  # type: ignore[misc]
        return
    waiting = list(jobs)
    running: dict[Connection, Job] = {}
    with ExitStack() as stack:
        for _ in range(min(workers, len(jobs))):
            pipe = stack.enter_context(_worker())
            # A worker holds one job at most, so a death names its arm and seed.
            running[pipe] = waiting.pop(0)
            _send(pipe, running[pipe])
        while running:
            ready = wait(list(running))
            # A copy: hearing of an end removes the pipe from `running`.
            for pipe in [pipe for pipe in running if pipe in ready]:
                _hear(pipe, running, waiting, on_progress, on_done)


def _send(pipe: Connection, job: Job | None) -> None:
    with contextlib.suppress(OSError):  # a worker that is gone is found by the end of its pipe
        pipe.send(job)


def _hear(pipe: Connection, running: dict[Connection, Job], waiting: list[Job], on_progress: OnProgress, on_done: OnDone) -> None:
    job = running[pipe]
    try:
        kind, *content = pipe.recv()
    except (EOFError, OSError):  # reset, where it ended before it took its job
        raise GraftworkError(
            f"The process of arm {job.arm!r}, seed {job.seed} ended without a result; most likely it ran out of memory. "
            "Finished jobs are kept: run the same command with --resume, or with --workers 1."
        ) from None
    if kind == "progress":
        on_progress(job, *content)
        return
    if kind == "failed":
        # Leaving the stack ends the other workers; their finished jobs are on the disk.
        raise _rebuild(job, *content)
    on_done(job, read_result(job.result_file))
    if waiting:
        running[pipe] = waiting.pop(0)
        _send(pipe, running[pipe])
    else:
        del running[pipe]
        _send(pipe, None)


def _rebuild(job: Job, module: str, name: str, message: str) -> Exception:
    from graftwork.core import errors

    # Names and texts cross the pipe: exceptions of other libraries may not survive pickling. Ours take a message.
    known = getattr(errors, name, None) if module == errors.__name__ else None
    if known is not None:
        return known(message)
    return GraftworkError(f"Arm {job.arm!r}, seed {job.seed} failed with {name}: {message}")


@contextmanager
def _worker() -> Iterator[Connection]:
    # spawn: a forked torch may hang, and a spawned process holds no copy of the other end of its pipe, so that it hears a killed
    # parent
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(timeout=0.5)
        if process.is_alive():
            # Not asked to end: who is stopped (SIGSTOP) hears nothing, and jobs are as safe from one as from the other.
            process.kill()
            process.join()


def _serve(pipe: Any, parent: int) -> None:
    import signal
    import traceback

    # In the middle of a job as well: a run that is taken up again must be alone in its folder.
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it ends its workers
    try:
        while (job := pipe.recv()) is not None:
            try:
                run_job(job, lambda fraction, text: pipe.send(("progress", fraction, text)))
            except (EOFError, BrokenPipeError):
                return
            except Exception as error:
                place = "" if isinstance(error, GraftworkError) else f"\n{traceback.format_exc()}"
                pipe.send(("failed", type(error).__module__, type(error).__name__, f"{error}{place}"))
                # The parent stops at the first failure; this worker has nothing more to do.
                return
            pipe.send(("done",))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone

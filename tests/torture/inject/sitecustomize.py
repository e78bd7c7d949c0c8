"""Imported by every Python process of a tortured command, as its folder is on ``PYTHONPATH``: notes each change of a file below one
folder, and at a chosen one kills processes or lets the system refuse.

``GRAFTWORK_TORTURE`` holds JSON: ``root`` (the folder), ``trace`` (a file that gets a line for each change, or null) and ``act``
(null, or what to do, see :class:`Act`). Standard library only; without the variable nothing happens, but that SIGUSR2 makes the
process of a command say where its threads stand.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

__all__ = ["PHASES", "phase_of"]

PHASES = ("reading", "training", "checkpoint", "job", "export", "report", "state", "output")
"""What a command is doing, by the file that it changes; ``training`` is the time between two changes of a job that trains."""
_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR
_MAIN = "GRAFTWORK_TORTURE_MAIN"


def phase_of(path: str) -> str:
    """Return the phase in which a file is changed.

    Args:
        path: Relative to the folder that a command writes into.
    """
    first, *rest = [part.lstrip(".") for part in path.removeprefix("run/").split("/")]
    if first == "jobs" and rest:
        if len(rest) > 1 and rest[1].startswith("checkpoint"):
            return "checkpoint"
        return "export" if rest[0].startswith("export") else "job"
    if first == "work":
        return "job" if rest and rest[0] in ("jobs", "done", "shared", "smoke") else "state"
    for phase, names in (("reading", ("suite",)), ("export", ("model", "plan")), ("report", ("report", "result"))):
        if first.startswith(names):
            return phase
    return "output" if first.startswith(("merged", "predicted")) else "state"


class Act:
    """What happens at a change.

    Args:
        phase: Phase of the change.
        number: Number of the change among those of this phase in this process, from 0.
        role: ``main`` or ``worker``: kind of process in which that is.
        delay: Seconds to wait after it; 0 acts before the change is made.
        do: ``group`` (kill the main process and this one), ``self`` (kill this one), ``vanish`` (remove the folder), or the number
            of an error that this change and all later ones end in.
        mark: File that is made first, by one process only: what was done, and the last file that this process changed.
        root: The folder whose changes are looked at.
    """

    def __init__(self, *, phase: str, number: int, role: str, delay: float, do: str | int, mark: str, root: str) -> None:
        self.phase, self.number, self.role, self.delay, self.do, self.mark, self.root = phase, number, role, delay, do, mark, root
        self.last = ""

    def is_due(self, role: str, phase: str, number: int) -> bool:
        """Return whether this is the change."""
        return (role, phase, number) == (self.role, self.phase, self.number)

    def perform(self, main: int) -> None:
        """Do it now or after the delay."""
        if self.delay:
            threading.Thread(target=self._later, args=(main,), daemon=True).start()
        else:
            self._now(main)

    def _later(self, main: int) -> None:
        time.sleep(self.delay)
        self._now(main)

    def _now(self, main: int) -> None:
        try:
            handle = os.open(self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(handle, self.last.encode())
        os.close(handle)
        if self.do == "vanish":
            shutil.rmtree(self.root, ignore_errors=True)
        elif self.do == "group":
            os.kill(main, signal.SIGKILL)
        if self.do in ("group", "self"):
            os.kill(os.getpid(), signal.SIGKILL)


def _changed(event: str, details: tuple[Any, ...]) -> str | None:
    """Return the path that an audit event is about to change; None if it changes nothing that has a name."""
    if event == "open":
        path, mode, flags = details
        if not isinstance(path, str | bytes | os.PathLike) or not (
            any(letter in str(mode or "") for letter in "wax+") or (flags or 0) & _WRITES
        ):
            return None
        return os.path.abspath(os.fsdecode(path))
    # The last argument is the folder of a relative path, or -1; of a rename it is the target that counts.
    path = details[1] if event in ("os.rename", "os.link", "os.symlink") else details[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    folder = details[-1]
    if event in ("os.remove", "os.rmdir", "os.mkdir") and isinstance(folder, int) and folder >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    return os.path.abspath(os.fsdecode(path))


def _install(spec: dict[str, Any]) -> None:
    main = int(os.environ.setdefault(_MAIN, str(os.getpid())))
    role = "main" if main == os.getpid() else "worker"
    root = os.path.abspath(spec["root"]) + os.sep
    act = Act(**spec["act"], root=root) if spec["act"] else None
    trace = os.open(spec["trace"], os.O_CREAT | os.O_WRONLY | os.O_APPEND) if spec["trace"] else None
    counts: Counter[str] = Counter()
    inside = threading.local()

    def hook(event: str, details: tuple[Any, ...]) -> None:
        # What the hook itself does is not looked at.
        if event not in _EVENTS or getattr(inside, "busy", False):
            return
        inside.busy = True
        try:
            path = _changed(event, details)
            if path is None or not path.startswith(root):
                return
            name = path[len(root) :]
            phase = phase_of(name)
            number = counts[phase]
            counts[phase] += 1
            if trace is not None:
                line = (os.getpid(), role, f"{time.monotonic():.4f}", phase, number, event, name)
                os.write(trace, ("\t".join(map(str, line)) + "\n").encode())
            if act is None:
                return
            act.last = name
            if act.is_due(role, phase, number):
                act.perform(main)
            if isinstance(act.do, int) and os.path.exists(act.mark):
                raise OSError(act.do, os.strerror(act.do), path)
        finally:
            inside.busy = False

    sys.addaudithook(hook)


if os.environ.get("GRAFTWORK_TORTURE_TAG") and sys.__stderr__ is not None:
    # Who is stuck is asked where.
    faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
if os.environ.get("GRAFTWORK_TORTURE"):
    _install(json.loads(os.environ["GRAFTWORK_TORTURE"]))

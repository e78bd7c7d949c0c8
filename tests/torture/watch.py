"""What a reader of damaged files may not do: start programs, talk to the network, touch files elsewhere, or never come back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import graftwork

__all__ = ["TooSlowError", "Trespass", "watched"]


class TooSlowError(BaseException):
    """Reading took more CPU time than it may; no ``Exception``, so that nothing catches it on the way."""


class Trespass:
    """What was done outside of the folders that were named."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.is_on = False


_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo")
_READABLE = tuple(
    os.path.realpath(path)
    for path in (
        sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], Path(graftwork.__file__).parent, Path(__file__).parents[1], "/proc", "/sys", "/usr",
        "/etc", "/dev/null", "/dev/urandom", "/lib", os.path.realpath(sys.executable),
    )
)  # fmt: skip
_trespass = Trespass()
_is_hooked = False


def _hook(event: str, details: tuple[Any, ...]) -> None:
    if not _trespass.is_on:
        return
    if event in _STARTS:
        _trespass.found.append(f"{event} {details!r:.200}")
    elif event == "open" and isinstance(details[0], str | bytes):
        # Found out with the hook off: the path functions may open files themselves.
        _trespass.is_on = False
        path = os.path.realpath(os.fsdecode(details[0]))
        mode, flags = details[1] or "", details[2] or 0
        is_write = any(letter in str(mode) for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR))
        roots = _trespass.allowed if is_write else (*_trespass.allowed, *_READABLE)
        if not any(path == root or path.startswith(root + os.sep) for root in roots) and path != os.devnull:
            _trespass.found.append(f"{'wrote' if is_write else 'read'} {path}")
        _trespass.is_on = True


@contextlib.contextmanager
def watched(*folders: str | Path, cpu_seconds: float) -> Iterator[Trespass]:
    """Note what happens outside of ``folders``, and raise :class:`TooSlowError` after some seconds of CPU time.

    Only Python's own calls are seen, not those of compiled libraries. The limit of time needs the main thread.
    """
    global _is_hooked
    if not _is_hooked:
        sys.addaudithook(_hook)  # it cannot be taken away again
        _is_hooked = True

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    _trespass.found, _trespass.allowed = [], tuple(os.path.realpath(folder) for folder in folders)
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    _trespass.is_on = True
    try:
        yield _trespass
    finally:
        _trespass.is_on = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)

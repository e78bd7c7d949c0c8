"""What a reader of damaged files may not do: start programs, talk to the network, touch files elsewhere, or never come back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import graftwork

__all__ = ["Outside", "TooSlowError", "Trespass", "watched"]


class TooSlowError(BaseException):
    """Reading took more CPU time than it may; no ``Exception``, so that nothing catches it on the way."""


class Trespass:
    """What was done outside of the folders that were named."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.is_on = False


class Outside:
    """A folder in which nothing may be opened, by whatever library: the system itself is asked. Where it cannot be, nothing is
    seen.

    Args:
        folder: The folder.
    """

    _OPENED = 0x20 | 0x2 | 0x100 | 0x200  # IN_OPEN, IN_MODIFY, IN_CREATE, IN_DELETE

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        if sys.platform.startswith("linux"):
            library = ctypes.CDLL(None, use_errno=True)
            self._handle = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            library.inotify_add_watch(self._handle, os.fsencode(folder), self._OPENED)

    def touched(self) -> list[str]:
        """Return the names that were opened since the last call."""
        found = []
        with contextlib.suppress(OSError):  # nothing has happened
            content = os.read(self._handle, 1 << 16)
            while content:
                _, _, _, length = struct.unpack("iIII", content[:16])
                found.append(content[16 : 16 + length].rstrip(b"\0").decode(errors="replace") or "the folder")
                content = content[16 + length :]
        return found


_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo")
_READABLE = tuple(
    os.path.realpath(path)
    for path in (
        sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], Path(graftwork.__file__).parent, Path(__file__).parents[1], "/proc", "/sys", "/usr",
        "/dev/null", "/dev/urandom", "/lib", os.path.realpath(sys.executable),
    )
)  # fmt: skip
_SYSTEM_FILES = ("/etc/localtime", "/etc/timezone", "/etc/nsswitch.conf", "/etc/passwd", "/etc/mime.types", "/etc/ld.so.cache")
_PEAK = os.path.realpath("/proc/self/clear_refs")
"""Written into to measure the most memory of a training."""
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
        given = os.fsdecode(details[0])
        # Relative to an open folder, which the event does not name: the tree is being removed.
        path = os.path.realpath(given) if os.path.isabs(given) or os.path.lexists(given) else os.devnull
        mode, flags = details[1] or "", details[2] or 0
        is_write = any(letter in str(mode) for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR))
        roots = _trespass.allowed if is_write else (*_trespass.allowed, *_READABLE)
        is_allowed = any(path == root or path.startswith(root + os.sep) for root in roots) or (
            not is_write and path in _SYSTEM_FILES
        )
        if not is_allowed and path not in (os.devnull, _PEAK):
            _trespass.found.append(f"{'wrote' if is_write else 'read'} {path}")
        _trespass.is_on = True


@contextlib.contextmanager
def watched(*folders: str | Path, cpu_seconds: float) -> Iterator[Trespass]:
    """Note what happens outside of ``folders``, and raise :class:`TooSlowError` after some seconds of CPU time.

    Only Python's own calls are seen, not those of compiled libraries. The limit of time needs the main thread. Who waits, for a
    pipe that nobody writes into, uses no CPU time and gets a minute and ten times the limit.
    """
    global _is_hooked
    if not _is_hooked:
        sys.addaudithook(_hook)  # it cannot be taken away again
        _is_hooked = True

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    _trespass.found, _trespass.allowed = [], tuple(os.path.realpath(folder) for folder in folders)
    before = {number: signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, 60 + 10 * cpu_seconds)
    _trespass.is_on = True
    try:
        yield _trespass
    finally:
        _trespass.is_on = False
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)

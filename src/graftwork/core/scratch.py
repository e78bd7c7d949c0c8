"""Temporary folders that do not outlive a killed process for long: locked while in use, and swept by the next process that asks for
one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from graftwork.core.files import remove_leftovers
from graftwork.core.folders import remove_own

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["remove_scratch", "scratch_folder", "sweep", "temporary_folder"]

# mkdtemp puts eight of these letters in the middle.
_SCRATCH = re.compile(r"graftwork-[a-z]+-[a-z0-9_]{8}\.scratch")
_TEMPORARY = re.compile(r"\..*\.graftwork-[a-z0-9_]{8}\.tmp")


@contextlib.contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """Yield an empty folder in the system's folder for temporary files; it is removed at the end, with all that is in it.

    What killed processes left there is removed first.

    Args:
        what: What it is for, in lower-case letters; part of its name.
    """
    remove_scratch()
    with _locked_folder(f"graftwork-{what}-", ".scratch", Path(tempfile.gettempdir())) as folder:
        yield folder


@contextlib.contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; what is left of it at the end is removed, after a kill by :func:`sweep`."""
    path = Path(path)
    with _locked_folder(f".{path.name}.graftwork-", ".tmp", path.parent) as folder:
        yield folder


@contextlib.contextmanager
def _locked_folder(prefix: str, suffix: str, parent: Path) -> Iterator[Path]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        handle = _lock(folder)
        if folder.exists():
            break
        if handle is not None:  # another process swept between the two steps
            os.close(handle)
    try:
        yield folder
    finally:
        remove_own(folder.parent, folder.name)
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, *, wait: bool = True) -> int | None:
    """Return a handle that locks a folder until it is closed, however the process ends; None if that is not possible here.

    Args:
        folder: The folder, no link.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: If another process holds it and ``wait`` is False.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def remove_scratch() -> list[Path]:
    """Remove the folders of :func:`scratch_folder` that killed processes of this user left; those in use are locked and stay.

    Returns:
        The folders that were removed.
    """
    return _remove_unused(Path(tempfile.gettempdir()).glob("graftwork-*.scratch"), _SCRATCH)


def sweep(folder: str | Path) -> None:
    """Remove the temporary files and folders that killed processes left in ``folder``, by their names; those in use stay, and so
    does everything of other names and in sub-folders."""
    remove_leftovers(folder)
    _remove_unused(Path(folder).glob(".*.graftwork-*.tmp"), _TEMPORARY)


def _remove_unused(folders: Iterable[Path], names: re.Pattern[str]) -> list[Path]:
    removed = []
    for folder in sorted(folders):
        if not names.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError):  # in use, or gone by now
            facts = os.lstat(folder)
            if not stat.S_ISDIR(facts.st_mode) or (hasattr(os, "getuid") and facts.st_uid != os.getuid()):
                continue
            handle = _lock(folder, wait=False)
            # Where nothing can be locked, nothing says that the folder is not in use.
            if handle is not None:
                remove_own(folder.parent, folder.name)
                os.close(handle)
                removed.append(folder)
    return removed

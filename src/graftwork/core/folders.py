"""Folders that graftwork may write to: known by a marker file, locked while in use, and never taken from the user.

A folder of ours holds a JSON file that names its format, written before anything else. A folder that is neither empty nor marked
belongs to the user: nothing is written into it, and nothing in it is deleted. What is deleted is deleted by name, and links are not
followed. A marked folder may come from somebody else: before anything is written, one that holds links or special files is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from graftwork.core.errors import ConfigError, StorageError
from graftwork.core.files import WRITE_TEST, check_writable_folder, open_to_append

__all__ = [
    "Claim",
    "FolderKind",
    "check_contents",
    "check_folder",
    "check_output_file",
    "claim_folder",
    "is_own",
    "remove_own",
]

_NUM_NAMED = 5
"""Entries of a refused folder that the error names."""
_NUM_TRIES = 20
# A larger file is surely no marker, and is not read into memory to find out.
_MAX_MARKER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class FolderKind:
    """How folders of one kind are known."""

    marker: str
    """Name of the JSON file; its key ``format`` is :attr:`format`."""
    format: str
    noun: str
    """As in errors: ``"a run of graftwork"``."""
    flag: str = "--out"
    """What names the folder on the command line."""
    lock: str = ""
    """Name of the lock file; empty if such folders are not locked."""
    earlier_keys: frozenset[str] = frozenset()
    """All keys of markers that were written before they named their format; empty if there are none."""


class Claim:
    """A folder that this process may write to; locked until :meth:`release`.

    Made by :func:`claim_folder`.
    """

    def __init__(self, path: Path, kind: FolderKind, *, is_new: bool, is_made: bool, before: Iterable[str], lock: Any) -> None:
        self.path, self.kind = path, kind
        self.is_new = is_new
        """Whether the folder held no marker yet: what came into it since then, this process made."""
        self._is_made, self._before, self._lock = is_made, frozenset(before), lock
        self._identity = _identity(path)

    def discard(self, names: Iterable[str]) -> None:
        """Remove these entries if this process made them, and the folder if this process made it and nothing else is in it.

        Nothing is removed from a folder that carried its marker before, or that is not the one that was claimed.
        """
        if not self.is_new or _identity(self.path) != self._identity:
            return
        # What stood there before the claim stays, whatever it is called.
        for name in names:
            if name not in self._before:
                remove_own(self.path, name)
        if self._is_made:
            with contextlib.suppress(OSError):  # somebody else put something into it
                self.path.rmdir()

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def is_own(folder: str | Path, kind: FolderKind) -> bool:
    """Return whether the folder carries the marker of its kind. A marker that is a link or cannot be read does not count."""
    marker = Path(folder) / kind.marker
    try:
        # Not stat: a link could lead to the marker of somebody else's folder.
        facts = os.lstat(marker)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_MARKER_BYTES:
            return False
        content = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    return content.get("format") == kind.format or (bool(kind.earlier_keys) and set(content) == kind.earlier_keys)


def check_folder(folder: str | Path, kind: FolderKind) -> bool:
    """Refuse a folder that belongs to the user; nothing is read but names and the marker, and nothing is written.

    Returns:
        Whether the folder carries the marker; False if it is empty or absent. A lock file and half-written markers of a process
        that was killed before it wrote the marker count as nothing.

    Raises:
        ConfigError: If it holds anything else, or is marked and holds links or special files (see :func:`check_contents`).
        StorageError: If it is a file, or cannot be listed.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return False
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "is a link that leads nowhere"
        raise StorageError(f"{folder} {what}. Choose another folder with {kind.flag}.")
    if is_own(folder, kind):
        check_contents(folder, kind)
        return True
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name + "/" * entry.is_dir() for entry in entries if not _is_litter(entry, kind))
    except OSError as error:
        raise StorageError(
            f"Cannot list {folder}: {error.strerror or error}. Choose another folder with {kind.flag}, or change its permissions."
        ) from error
    if found:
        shown = ", ".join(name if name.isprintable() else repr(name) for name in found[:_NUM_NAMED])
        more = f" and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
        raise ConfigError(
            f"{folder} is not empty and is not {kind.noun} (it has no {kind.marker} of the format {kind.format}): it holds "
            f"{shown}{more}. Nothing in it was changed. Give {kind.flag} a folder that is empty or does not exist yet, for "
            f"example {_free(folder)}."
        )
    return False


def check_contents(folder: str | Path, kind: FolderKind) -> None:
    """Refuse a marked folder that holds a link, pipe, device or socket, at any depth: what is written there would land elsewhere.

    Nothing is read but names. The folder itself may be a link. A folder without a marker passes: it is refused by other checks.

    Raises:
        ConfigError: Naming the entry.
        StorageError: If a folder cannot be listed.
    """
    folder = Path(folder)
    marker = folder / kind.marker
    # The marker first: it is read before anything else.
    if os.path.lexists(marker) and not stat.S_ISREG(os.lstat(marker).st_mode):
        raise ConfigError(_stray(marker, kind))
    waiting = [folder] if is_own(folder, kind) else []
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(inside) as entries:
                for entry in entries:
                    if _is_link(entry.path):
                        raise ConfigError(_stray(Path(entry.path), kind))
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    # Looked at once more if it seems special: it may just have gone.
                    elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                        raise ConfigError(_stray(Path(entry.path), kind))
        except FileNotFoundError:
            continue  # another process works here; who holds the lock is found out next
        except OSError as error:
            raise StorageError(
                f"Cannot list {inside}: {error.strerror or error}. Choose another folder with {kind.flag}, or change its permissions."
            ) from error


def _stray(path: Path, kind: FolderKind) -> str:
    what = "a link" if _is_link(path) else "a pipe, device or socket"
    shown = str(path) if str(path).isprintable() else repr(str(path))
    return (
        f"{shown} is {what}. {kind.noun[0].upper()}{kind.noun[1:]} holds none, and with one inside, writing could change files "
        "elsewhere. Nothing was changed. If the folder is yours, put a copy of what is meant in its place, or remove it; if somebody "
        f"gave it to you, ask what it is for, or choose another folder with {kind.flag}."
    )


def _is_link(path: str | Path) -> bool:
    # Junctions are links between folders on Windows; Python knows them from 3.12 on.
    return os.path.islink(path) or bool(getattr(os.path, "isjunction", lambda path: False)(path))


def claim_folder(folder: str | Path, kind: FolderKind) -> Claim:
    """Take a folder that is absent, empty or of this kind: check it, make it, prove that it can be written, and lock it.

    The caller writes the marker next, before anything else.

    Raises:
        ConfigError: If the folder belongs to the user, or another process works in it.
        StorageError: If it cannot be written.
    """
    folder = Path(folder)
    for _ in range(_NUM_TRIES):
        try:
            return _claimed(folder, kind)
        except OSError as error:  # a StorageError is one as well
            # A process that discarded its run removed the folder under our feet: make it again. ("File exists" comes of that as
            # well, where the folder was there when it was to be made and gone when it was looked at; a file in its place was
            # refused before.)
            if not isinstance(error.__cause__ or error, FileNotFoundError | FileExistsError):
                raise
    return _claimed(folder, kind)


def _claimed(folder: Path, kind: FolderKind) -> Claim:
    check_folder(folder, kind)
    is_made = not os.path.exists(folder)
    check_writable_folder(folder)
    lock, is_lock_made = _locked(folder, kind) if kind.lock else (None, False)
    try:
        # Again, now that nobody else can begin here.
        is_new = not check_folder(folder, kind)
        before = set(os.listdir(folder)) - ({kind.lock} if is_lock_made else set())
    # An interrupt too: a handle that stays open keeps the folder locked for this process.
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return Claim(folder, kind, is_new=is_new, is_made=is_made, before=before, lock=lock)


def remove_own(folder: str | Path, name: str) -> bool:
    """Remove ``folder/name``, a file or a whole folder that graftwork wrote.

    Links are neither followed nor removed: a link at ``name``, or on the way to it below ``folder``, leaves everything as it is.

    Args:
        folder: A folder of ours.
        name: Relative path below it, with ``/``.

    Returns:
        Whether nothing is there any more, or never was; False if a link or the system (no permission) kept something.

    Raises:
        ValueError: If ``name`` is not the name of something below ``folder``.
    """
    path = Path(folder)
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`name` must lead to something below {folder}; got {name!r}.")
    for part in parts:
        path = path / part
        if path.is_symlink():
            return False
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)  # links inside go, what they lead to stays
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)


def check_output_file(
    out: str | Path, inputs: Iterable[str | Path], *, flag: str = "--out", replaces: Callable[[Path], bool] | None = None
) -> Path:
    """Refuse to write over a file that is read, however it is spelled: relative, through a link, or as a hard link.

    Args:
        out: The file to write.
        inputs: Files that are read; what is not there is left out.
        flag: What names ``out`` on the command line.
        replaces: Returns whether an existing file is a result of the same command, which a new one may replace; by default any file
            may be replaced. Empty files always may.

    Returns:
        ``out`` as a path.

    Raises:
        ConfigError: If ``out`` is a folder, one of ``inputs``, or a file of something else.
    """
    out = Path(out)
    if os.path.isdir(out):
        raise ConfigError(f"{out} is a folder. Name the file to write with {flag}.")
    for path in inputs:
        if _is_same(out, Path(path)):
            raise ConfigError(f"{out} is also an input ({path}), which would be overwritten. Name another file with {flag}.")
    if replaces is not None and os.path.isfile(out) and os.path.getsize(out) and not replaces(out):
        raise ConfigError(
            f"{out} is there already, and it is no earlier result of this command. Nothing in it was changed. Name another file with "
            f"{flag}, or remove this one first."
        )
    return out


def _is_same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):  # one of them is not there
        return False


def _is_litter(entry: os.DirEntry[str], kind: FolderKind) -> bool:
    """Return whether a process that was killed while it claimed the folder left this."""
    if not entry.is_file(follow_symlinks=False):
        return False
    if entry.name.startswith(f".{kind.marker}.") and entry.name.endswith(".tmp"):
        return True
    is_empty = entry.stat(follow_symlinks=False).st_size == 0
    return is_empty and (entry.name == kind.lock or entry.name.startswith(f".{WRITE_TEST}"))


def _free(folder: Path) -> Path:
    """Return a path below ``folder`` where nothing is."""
    names: Iterator[str] = (f"run-{number}" for number in range(1, 1000))
    return folder / next((name for name in names if not os.path.lexists(folder / name)), "another")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _locked(folder: Path, kind: FolderKind) -> tuple[Any, bool]:
    """Return the open lock file, and whether this call made it; the lock goes away with the process, however that ends.

    The file is None where the system has no such locks.

    Raises:
        ConfigError: If another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None, False
    path = folder / kind.lock
    is_made = False
    # About two seconds in all: a holder that is just ending is waited for, a working one is not.
    for attempt in range(20):
        handle: IO[Any]
        try:
            try:
                handle = open(path, "x", encoding="utf-8")  # noqa: SIM115  (held for as long as the claim lasts)
                is_made = True
            except FileExistsError:
                handle = open_to_append(path, may_be_shared=True)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"Cannot write into {folder}: {error.strerror or error}. Choose another folder with {kind.flag}."
            ) from error
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file together with a run that never began: then this lock locks nothing.
            if os.path.samestat(os.fstat(handle.fileno()), os.stat(path)):
                return handle, is_made
        handle.close()
        time.sleep(0.1 if attempt else 0.02)
    raise ConfigError(f"Another process is working in {folder}. Wait for it to end, or choose another folder with {kind.flag}.")

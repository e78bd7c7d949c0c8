"""Files that are whole or absent: atomic writes, hashes, append-only logs, and checks before anything runs."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graftwork.core.errors import FileFormatError, StorageError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "WRITE_TEST",
    "append_jsonl",
    "atomic_path",
    "cache_folder",
    "check_writable_folder",
    "hash_bytes",
    "hash_file",
    "hash_files",
    "open_to_append",
    "read_json",
    "read_jsonl",
    "remove_leftovers",
    "write_bytes",
    "write_json",
    "write_text",
]

WRITE_TEST = "write-test"
"""Name of the file that is never written: a temporary one that stands for it shows that files can be."""
_MARK = ".graftwork-"
# mkstemp puts eight of these letters in the middle.
_LEFTOVER = re.compile(rf"\..*{re.escape(_MARK)}[a-z0-9_]{{8}}\.tmp")


def _storage_error(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"The disk is full while writing {path}. Nothing written before is lost. Free some space (or choose another "
            "folder with --out) and run the same command again; a run goes on with --resume."
        )
    return StorageError(
        f"Cannot write {path}: {error.strerror or error}. Choose a folder you may write to with --out, or change its permissions."
    )


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed over ``path``, on failure removed.

    The temporary file is locked as long as this process works on it: what a kill leaves behind is free, and
    :func:`remove_leftovers` finds it.

    Raises:
        StorageError: If the folder cannot be written or the disk is full; an older file at ``path`` stays whole.
    """
    path = Path(path)
    temporary: Path | None = None
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _locked_temporary(path)
        yield temporary
        # Synced before the rename: after a power cut the new name must not stand for an empty file.
        with open(temporary, "r+b") as written:  # for writing: Windows syncs no others
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        # A nested write has said already what is wrong. Without a number the error is not the system's.
        if isinstance(error, StorageError) or error.errno is None:
            raise
        raise _storage_error(path, error) from error
    finally:
        if temporary is not None:
            # What stays where nothing can be removed any more is swept later; the error above says more than this one would.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _locked_temporary(path: Path) -> tuple[int | None, Path]:
    while True:
        # Most file systems allow 255 bytes a name; prefix and suffix need their share. Letters can have four bytes.
        short = os.fsencode(path.name)[:200].decode("utf-8", errors="ignore")
        handle, name = tempfile.mkstemp(prefix=f".{short}{_MARK}", suffix=".tmp", dir=path.parent)
        if fcntl is None:
            os.close(handle)  # Windows renames no open file
            return None, Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process swept between the two steps


def remove_leftovers(folder: str | Path, of: str = "") -> list[tuple[Path, int]]:
    """Remove temporary files that killed processes left in ``folder``; those of running processes are locked and stay.

    Args:
        folder: Where they are.
        of: Begin of the name of the file that was to be written; all by default.

    Returns:
        Path and size in bytes of each file that was removed.
    """
    removed = []
    for path in sorted(Path(folder).glob(f".{glob.escape(of)}*{_MARK}*.tmp")):
        if fcntl is None or not _LEFTOVER.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):  # locked, of another user, or gone by now
            # Neither a link nor a pipe of such a name may be followed or make us wait.
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(handle)
                if stat.S_ISREG(found.st_mode):
                    path.unlink()
                    removed.append((path, found.st_size))
            finally:
                os.close(handle)
    return removed


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        FileFormatError: If the file is not JSON or cannot be read; the message names the place.
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # besides wrong syntax: numbers of thousands of digits, thousands of brackets
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise FileFormatError(
            f"{path} is not valid JSON: {reason}. Restore it from a copy, or remove it and run again."
        ) from error
    except FileNotFoundError:
        raise  # there is nothing that could be damaged
    except OSError as error:  # a folder of that name, a link to itself, no permission
        raise FileFormatError(
            f"{path} cannot be read: {error.strerror or error}. Restore it from a copy, or remove it and run again."
        ) from error


def open_to_append(path: str | Path, *, may_be_shared: bool = False) -> BinaryIO:
    """Open a plain file for reading and appending; made if absent, its folder too.

    What is appended in place reaches whatever the name stands for, so a link at the name is not followed, and a pipe, a device or a
    file that has another name as well (a hard link) is refused.

    Args:
        path: The file.
        may_be_shared: Whether the file may have other names, as one may that is only locked.

    Raises:
        StorageError: If it cannot be opened or is no such file; nothing was changed.
    """
    path = Path(path)
    # Without waiting: a pipe would wait for somebody at its other end. Windows lacks some of these flags.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(path):  # said in words; the flag below is for one that comes in between
            raise StorageError(_not_appended(path, "is a symbolic link"))
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _storage_error(path, error) from error
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode) or (facts.st_nlink > 1 and not may_be_shared):
        os.close(handle)
        what = "has other names as well (hard links)" if stat.S_ISREG(facts.st_mode) else "is no plain file"
        raise StorageError(_not_appended(path, what))
    return open(handle, "ab+")


def _not_appended(path: Path, what: str) -> str:
    return f"{path} {what}, and nothing is appended to a file of somewhere else. Remove it, or put a copy in its place."


def append_jsonl(path: str | Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line and flush it; a torn last line is ignored by :func:`read_jsonl`.

    Raises:
        StorageError: If the file cannot be written, or is a link to another one (see :func:`open_to_append`).
    """
    path = Path(path)
    try:
        with open_to_append(path) as log:
            if log.seek(0, os.SEEK_END) > 0:
                log.seek(-1, os.SEEK_END)
                if log.read(1) != b"\n":  # the writer was killed in the middle of its last line
                    log.write(b"\n")
            log.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _storage_error(path, error) from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a log written by :func:`append_jsonl`; lines that a kill cut short are left out."""
    path = Path(path)
    if not path.exists():
        return []
    records = []
    # Not splitlines, which also cuts at characters that JSON texts may hold, such as U+2028.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, read in chunks."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Return a SHA-256 over names (without folders) and contents of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def check_writable_folder(folder: str | Path) -> Path:
    """Create ``folder`` if needed and prove by a real write that it can be written.

    Raises:
        StorageError: If it cannot; nothing else has run by then.
    """
    folder = Path(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise StorageError(f"{folder} is a file, not a folder. Choose another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A real write, because permission bits prove nothing on read-only mounts, on network shares, or for root.
        handle, name = _locked_temporary(folder / WRITE_TEST)
        name.unlink()
        if handle is not None:
            os.close(handle)
    except OSError as error:
        raise _storage_error(folder, error) from error
    remove_leftovers(folder, WRITE_TEST)
    return folder


def cache_folder(*parts: str) -> Path:
    """Return a folder for things that runs share, not created yet.

    Args:
        parts: Names below the cache: ``$GRAFTWORK_CACHE``, or ``graftwork`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        StorageError: If none of the two is set and the user has no home folder, as in some containers.
    """
    named = os.environ.get("GRAFTWORK_CACHE")
    if named:
        return Path(named).joinpath(*parts)
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise StorageError(
            "There is no folder for the cache: this user has no home folder. Set GRAFTWORK_CACHE to a folder that you may write to."
        ) from error
    return caches.joinpath("graftwork", *parts)

"""SHA-256 of the files that a merge reads, each computed once, in threads beside the merge: hashing releases the interpreter's
lock."""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from graftwork.core.errors import DataError
from graftwork.core.machine import available_cores

__all__ = ["InputHashes", "hash_mapped"]

_BLOCK = 1 << 22


def hash_mapped(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Its pages are mapped: reading would copy all of them first.

    Raises:
        OSError: If the file is not there or cannot be read.
        ValueError: If it is empty.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
        for begin in range(0, len(content), _BLOCK):
            with content[begin : begin + _BLOCK] as block:
                digest.update(block)
                # Otherwise the whole file would count as memory of this process.
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED, begin, len(block))
    return digest.hexdigest()


class InputHashes:
    """Hashes of input files, remembered by path."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._failure: DataError | None = None
        self._threads: list[threading.Thread] = []

    def of(self, file: Path) -> str:
        """Return the hash of one file, at once.

        Raises:
            DataError: If it cannot be read.
        """
        if file not in self._known:
            try:
                self._known[file] = hash_mapped(file)
            except (OSError, ValueError) as error:
                said = getattr(error, "strerror", None) or error
                raise DataError(f"{file} could not be read for its hash: {said}. Run the merge again.") from error
        return self._known[file]

    def start(self, files: Iterable[Path]) -> None:
        """Begin with files in threads of their own, at most one a core; what is known already is not computed again."""
        waiting = list(dict.fromkeys(files))
        shared = iter(waiting)
        # Daemons: a merge that fails or is interrupted does not wait for them.
        self._threads = [
            threading.Thread(target=self._run, args=(shared,), daemon=True) for _ in range(min(len(waiting), available_cores()))
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> Mapping[Path, str]:
        """Return all hashes once they are there.

        Raises:
            DataError: If a file could not be read.
        """
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        return self._known

    # An error in a thread would be lost, so it is kept and raised where the hashes are asked for.
    def _run(self, shared: Iterator[Path]) -> None:
        for file in shared:
            try:
                self.of(file)
            except DataError as error:
                self._failure = error
                return

"""Arrays that are computed once and kept in the user's cache: addressed by content, checked on every read, safe between
processes.

An entry is a folder named after its key. It holds one ``.npy`` file an array, named after the hash of its content, and a
``manifest.json`` that is written last and says which files belong to it. A reader therefore sees a whole entry or none, also
when two processes write the same entry or one is killed in the middle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from graftwork.core.errors import FileFormatError, StorageError
from graftwork.core.files import atomic_path, hash_file, read_json, write_json
from graftwork.core.locks import exclusive
from graftwork.core.scratch import sweep, temporary_folder

__all__ = ["ARRAY_FAULTS", "NewArray", "cached_arrays", "filled_arrays", "stored_arrays"]

Array = NDArray[Any]
NewArray = Callable[[str, tuple[int, ...], DTypeLike], Array]
"""Returns a new array of zeros, of a name, shape and type: mapped from a file, to be filled in place."""
FORMAT = "graftwork-arrays-2"
_ZEROS = 2**20
"""Bytes that are written at a time when a file is made."""
ARRAY_FAULTS = (OSError, ValueError, EOFError, OverflowError, SyntaxError, MemoryError, tokenize.TokenError)
"""What ``numpy.load`` raises for damaged files: their header is Python text, and may promise shapes of any size."""


def cached_arrays(folder: str | Path, key: str, compute: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Return the arrays of the entry ``key``, from disk if they are there and whole, computed and stored otherwise.

    Args:
        folder: Folder of the cache; created if needed.
        key: Name of the entry, a hash over everything that the arrays depend on. It becomes a folder name.
        compute: Called without arguments if the entry is absent or damaged; returns arrays by name, no objects in them.
            While one process computes an entry, others that ask for it wait and then read what was stored.

    Returns:
        Read-only, memory-mapped arrays by name.

    Raises:
        StorageError: If the entry cannot be written.
        ValueError: If an array holds Python objects.
    """

    def written() -> Callable[[Path], None]:
        computed = compute()
        return lambda entry: _write(entry, computed)

    return _cached(Path(folder) / key, written)


def filled_arrays(folder: str | Path, key: str, fill: Callable[[NewArray], None]) -> dict[str, Array]:
    """Return the arrays of the entry ``key`` as :func:`cached_arrays` does, for arrays that need not fit into memory.

    Args:
        folder: See :func:`cached_arrays`.
        key: Likewise.
        fill: Called if the entry is absent or damaged, with what makes an array in the entry; fills all arrays that it makes.

    Raises:
        StorageError: If the entry cannot be written: the whole size is taken from the disk before anything is filled.
        ValueError: If an array is to hold Python objects.
    """
    return _cached(Path(folder) / key, lambda: lambda entry: _fill(entry, fill))


def _cached(entry: Path, prepare: Callable[[], Callable[[Path], None]]) -> dict[str, Array]:
    """Return the arrays of an entry; ``prepare`` returns what writes it."""
    arrays = _read(entry)
    if arrays is not None:
        return arrays
    with _locked(entry):
        arrays = _read(entry)  # another process may have finished it while this one waited
        if arrays is None:
            sweep(entry)  # what a process left that was killed while it wrote this entry
            write = prepare()
            try:
                write(entry)
            except StorageError as error:
                if not isinstance(error.__cause__, FileExistsError | IsADirectoryError | NotADirectoryError):
                    raise
                raise StorageError(
                    f"Something that is no cache entry has the place of one, {entry} ({error.__cause__.strerror}). Remove it, or "
                    "choose another cache with GRAFTWORK_CACHE."
                ) from error
            arrays = _read(entry)
    if arrays is None:
        raise FileFormatError(
            f"{entry} cannot be read back after writing it. Check the disk, or choose another cache with GRAFTWORK_CACHE."
        )
    return arrays


def stored_arrays(entry: str | Path) -> dict[str, Array] | None:
    """Return the arrays of an entry, read-only and mapped; None if it is absent or damaged, which is said as a warning.

    Args:
        entry: Folder of the entry: that of the cache and the key.
    """
    return _read(Path(entry))


def _read(entry: Path) -> dict[str, Array] | None:
    """Return the stored arrays; None if there is no entry or it is damaged, which is said as a warning."""
    manifest = entry / "manifest.json"
    if not manifest.exists():
        return None
    try:
        content = read_json(manifest)
        if content["format"] != FORMAT:
            raise FileFormatError(f"unknown format {content['format']!r}")
        # Which arrays there are, and by which names, is part of what was written.
        if content["sha256"] != _digest(content["arrays"]):
            raise FileFormatError("its list of arrays is not what was written")
        arrays = {}
        for name, record in content["arrays"].items():
            # The name only: a changed manifest must not lead to files elsewhere.
            path = entry / Path(record["file"]).name
            # Read through once: the arrays are mapped, so damage would show in the middle of training.
            if hash_file(path) != record["sha256"]:
                raise FileFormatError(f"{path.name} is not what was written")
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*ARRAY_FAULTS, KeyError, TypeError, AttributeError) as error:
        # stacklevel points at the caller of `cached_arrays`.
        warnings.warn(f"The cache entry {entry} is damaged ({error}); it is computed again.", RuntimeWarning, stacklevel=4)
        return None
    return arrays


def _write(entry: Path, arrays: Mapping[str, Array]) -> None:
    records = {}
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        if array.dtype.hasobject:
            raise ValueError(f"The array {name!r} holds Python objects, which are not stored; give numbers or booleans.")
        # The name holds a hash of the content, so that a file which an older manifest points to never changes.
        path = entry / f"{name}-{hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()[:16]}.npy"
        with atomic_path(path) as temporary:
            with open(temporary, "wb") as target:
                np.save(target, array, allow_pickle=False)
            records[name] = {"file": path.name, "sha256": hash_file(temporary)}
    _write_manifest(entry, records)


def _write_manifest(entry: Path, records: Mapping[str, Any]) -> None:
    # Last, so that a manifest never names files that are not there yet.
    write_json(entry / "manifest.json", {"format": FORMAT, "arrays": records, "sha256": _digest(records)})


def _fill(entry: Path, fill: Callable[[NewArray], None]) -> None:
    made: dict[str, np.memmap[Any, Any]] = {}

    def new(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with _storage_errors(entry):
            made[name] = _zeros(folder / f"{name}.npy", name, shape, np.dtype(dtype))
        return made[name]

    with contextlib.ExitStack() as held:
        with _storage_errors(entry):
            entry.mkdir(parents=True, exist_ok=True)
            held.callback(_remove_if_empty, entry)
            folder = held.enter_context(temporary_folder(entry / "filling"))
        fill(new)
        records = {}
        with _storage_errors(entry):
            for name in list(made):
                made.pop(name).flush()  # nothing maps it any longer: an open file cannot be renamed everywhere
                digest = hash_file(folder / f"{name}.npy")
                target = entry / f"{name}-{digest[:16]}.npy"
                os.replace(folder / f"{name}.npy", target)
                records[name] = {"file": target.name, "sha256": digest}
    _write_manifest(entry, records)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it holds something
        folder.rmdir()


def _zeros(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    if dtype.hasobject:
        raise ValueError(f"The array {name!r} holds Python objects, which are not stored; give numbers or booleans.")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with open(path, "wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        left, zeros = math.prod(shape) * dtype.itemsize, bytes(_ZEROS)
        # Written, not only promised by a length: a mapped file that finds the disk full later ends the process.
        while left:
            left -= target.write(zeros[: min(left, len(zeros))])
        target.flush()
        os.fsync(target.fileno())
    return np.lib.format.open_memmap(path, mode="r+")


@contextlib.contextmanager
def _storage_errors(entry: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"Cannot write {entry}: {error.strerror or error}. Free space, or choose another cache with GRAFTWORK_CACHE."
        ) from error


def _digest(records: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Hold the entry's lock."""
    # Entered inside, so that only the lock's own OSErrors are translated and not those of the body.
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(entry.parent / f".{entry.name}.lock"))
        except OSError as error:
            raise StorageError(
                f"Cannot write into the cache {entry.parent}: {error.strerror or error}. "
                "Set GRAFTWORK_CACHE to a folder that you may write to."
            ) from error
        yield

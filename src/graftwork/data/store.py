"""A suite on disk: arrays as .npy that are mapped into memory, everything else as JSON. Written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, FileFormatError, StorageError
from graftwork.core.files import check_writable_folder, read_json, remove_leftovers, write_json
from graftwork.core.folders import FolderKind, check_folder, remove_own
from graftwork.core.input_spec import read_input_specs, write_input_specs
from graftwork.core.records import TaskSpec
from graftwork.core.scratch import temporary_folder
from graftwork.data.array_cache import ARRAY_FAULTS
from graftwork.data.row_names import RowNames
from graftwork.data.suite import Suite

__all__ = ["FORMAT", "is_stored_suite", "load_suite", "save_suite"]

FORMAT = "graftwork-suite-1"
_KIND = FolderKind(marker="suite.json", format=FORMAT, noun="a stored suite", flag="`folder`")
_ARRAY_KEY = "__array__"
_ROWS_KEY = "__row_names__"
_OWN_FILE = re.compile(r"suite\.json|\d{3,}\.npy")
_JSON_FIELDS = ("name", "domains", "notes", "credits", "sources")


def is_stored_suite(folder: str | Path) -> bool:
    """Return whether :func:`save_suite` wrote this folder."""
    return (Path(folder) / "suite.json").is_file()


def save_suite(suite: Suite, folder: str | Path) -> Path:
    """Write ``suite`` into ``folder``, replacing an older suite there only once the new one is complete.

    A process that is killed meanwhile leaves the older suite or the new one, whole, and at most files that the next call removes.

    Args:
        suite: Any suite; ``raw`` may hold arrays, lists, strings, numbers and mappings of these.
        folder: Target; its parents are made.

    Returns:
        The folder.

    Raises:
        StorageError: If the folder holds something else than a suite, cannot be written, or the disk is full.
        TypeError: If ``raw`` holds something that is neither an array nor JSON.
    """
    folder = Path(folder)
    remove_leftovers(folder)
    is_suite = _check_replaceable(folder)
    check_writable_folder(folder.parent)
    if is_suite:
        return _replace(suite, folder)
    try:
        # A folder in a folder: the inner one is renamed, the outer one goes in any case.
        with temporary_folder(folder) as temporary:
            fresh, old = temporary / "new", temporary / "old"
            fresh.mkdir()
            _write(suite, fresh)
            # A folder cannot be renamed over one that is not empty: what a killed process left in the old one steps aside.
            if folder.exists():
                os.replace(folder, old)
            os.replace(fresh, folder)
    except OSError as error:
        raise _storage_error(folder, error) from error
    return folder


def _replace(suite: Suite, folder: Path) -> Path:
    """Write ``suite`` beside the suite in ``folder``, under other names; ``suite.json`` says which of them count."""
    before = _array_files(folder)
    first = 1 + max((int(Path(name).stem) for name in before), default=-1)
    try:
        _write(suite, folder, first=first)
    # An interrupt too: half a suite would take its space until the next one is written.
    except BaseException as error:
        for name in _array_files(folder) - before:
            remove_own(folder, name)
        if isinstance(error, OSError):
            raise _storage_error(folder, error) from error
        raise
    for name in before:
        remove_own(folder, name)
    return folder


def _array_files(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if _OWN_FILE.fullmatch(name)} - {_KIND.marker}


def _storage_error(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"Cannot write the suite into {folder}: {error.strerror or error}. Free space, or choose another folder.")


def _check_replaceable(folder: Path) -> bool:
    """Refuse a folder that is neither absent, empty nor a stored suite and nothing else: it is replaced as a whole.

    Returns:
        Whether it holds a suite.

    Raises:
        StorageError: If something in it is not ours.
    """
    try:
        is_suite = check_folder(folder, _KIND)
    except ConfigError as error:
        raise StorageError(str(error)) from error
    more = sorted(name for name in os.listdir(folder) if not _OWN_FILE.fullmatch(name)) if is_suite else []
    if more:
        raise StorageError(f"{folder} holds {more[0]!r} beside a stored suite, so it is not replaced. Choose another folder.")
    return is_suite


def load_suite(folder: str | Path, *, memory_map: bool = True) -> Suite:
    """Read a suite that :func:`save_suite` wrote.

    Args:
        folder: The folder.
        memory_map: Map arrays read-only (starts at once, shared between processes) instead of copying them into memory.

    Raises:
        FileFormatError: If files are missing, truncated or not a suite.
    """
    folder = Path(folder)
    if not is_stored_suite(folder):
        raise FileFormatError(
            f"{folder} is not a stored suite: it has no suite.json. Give a folder written by graftwork, or the data itself."
        )
    state = read_json(folder / "suite.json")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise FileFormatError(
            f"{folder / 'suite.json'} has the format {found!r}; this version reads {FORMAT!r}. Make the suite again."
        )
    try:
        return Suite(**_fields_of(state, folder, memory_map))
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise FileFormatError(
            f"{folder / 'suite.json'} is damaged ({reason}). Remove the folder {folder} and make the suite again."
        ) from error


def _fields_of(state: Mapping[str, Any], folder: Path, memory_map: bool) -> dict[str, Any]:
    """Return the arguments of the suite that ``suite.json`` describes."""
    arrays = {name: _load_array(folder, file, memory_map) for name, file in state["arrays"].items()}
    fields: dict[str, Any] = {key: state[key] for key in _JSON_FIELDS}
    fields["input_specs"] = read_input_specs(state)
    fields |= {key: tuple(fields[key]) for key in ("domains", "notes")}
    for part in ("inputs", "targets", "splits"):
        fields[part] = {key: arrays[f"{part}/{key}"] for key in state["order"][part]}
    fields |= {part: arrays.get(part) for part in ("groups", "domain")}
    fields["tasks"] = tuple(TaskSpec.from_json(task) for task in state["tasks"])
    fields["raw"] = _unpack(state["raw"], arrays)
    return fields


def _write(suite: Suite, folder: Path, *, first: int = 0) -> None:
    """Write arrays and then ``suite.json``; file names count from ``first``."""
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("inputs", "targets", "splits"):
        arrays |= {f"{part}/{key}": np.asarray(array) for key, array in getattr(suite, part).items()}
    arrays |= {part: np.asarray(array) for part in ("groups", "domain") if (array := getattr(suite, part)) is not None}
    state: dict[str, Any] = {"format": FORMAT, "tasks": [task.to_json() for task in suite.tasks]}
    state |= {key: _plain(getattr(suite, key)) for key in _JSON_FIELDS}
    state["input_specs"] = _plain(write_input_specs(suite.input_specs))
    state["raw"] = _pack(suite.raw, arrays, "raw")
    state["order"] = {part: list(getattr(suite, part)) for part in ("inputs", "targets", "splits")}
    # Numbers for file names: names of inputs and targets may hold anything.
    state["arrays"] = {name: f"{index:03d}.npy" for index, name in enumerate(arrays, first)}
    for name, array in arrays.items():
        with open(folder / state["arrays"][name], "wb") as target:
            np.save(target, np.ascontiguousarray(array), allow_pickle=False)
            target.flush()
            # suite.json comes last and promises that the arrays are there.
            os.fsync(target.fileno())
    write_json(folder / "suite.json", state)


def _load_array(folder: Path, name: Any, memory_map: bool) -> NDArray[Any]:
    path = folder / str(name)
    if path.resolve().parent != folder.resolve():  # a received folder must not lead to files or devices elsewhere
        raise FileFormatError(
            f"{folder / 'suite.json'} names the array file {name!r}, which is not in {folder}. Make the suite again."
        )
    try:
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except ARRAY_FAULTS as error:
        if isinstance(error, ValueError) and "empty" in str(error):  # zero elements cannot be mapped
            return np.load(path, allow_pickle=False)
        if isinstance(error, ValueError):
            raise FileFormatError(
                f"{path} is damaged ({error}). Remove the folder {path.parent} and make the suite again."
            ) from error
        raise FileFormatError(
            f"{path} is missing or damaged ({error}). Remove the folder {path.parent} and make the suite again."
        ) from error


def _plain(value: Any) -> Any:
    """Return JSON values for NumPy scalars, tuples, mappings and dataclasses."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        # Names of a million rows are JSON already.
        return list(value) if set(map(type, value)) <= {str} else [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"A stored suite holds arrays and JSON values only; got {type(value).__name__}: {value!r:.80}.")


def _pack(value: Any, arrays: dict[str, NDArray[Any]], name: str) -> Any:
    """Return JSON for ``raw``, moving numeric arrays into ``arrays``."""
    if isinstance(value, Mapping):
        return {str(key): _pack(item, arrays, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        arrays[name] = value
        return {_ARRAY_KEY: name}
    return {_ROWS_KEY: len(value)} if isinstance(value, RowNames) else _plain(value)


def _unpack(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY_KEY}:
            return arrays[value[_ARRAY_KEY]]
        if set(value) == {_ROWS_KEY}:
            return RowNames(int(value[_ROWS_KEY]))
        return {key: _unpack(item, arrays) for key, item in value.items()}
    return value

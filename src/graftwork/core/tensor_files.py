"""Safetensors files read and written tensor by tensor, without torch and without holding a model in memory.

The ``safetensors`` package reads lazily, but it writes whole models at once and its NumPy side knows no bfloat16; merging files larger than
memory needs both. This module reads and writes the published format (8 bytes of header length, a JSON header, raw tensors) and nothing else.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError, FileFormatError
from graftwork.core.files import atomic_path, read_json

__all__ = ["TensorFile", "TensorFolder", "TensorSource", "open_tensors", "write_tensors"]

Array = NDArray[Any]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "|b1",
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_LARGEST_HEADER = 100_000_000


class TensorSource(Mapping[str, Array]):
    """Named tensors; ``source[name]`` gives NumPy values, bfloat16 widened to float32, without loading the others."""

    metadata: Mapping[str, str]

    @abstractmethod
    def dtype_name(self, name: str) -> str:
        """Return the stored type as safetensors calls it, for example ``"BF16"``."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape without reading the values."""

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Return the files behind this source."""

    def is_float(self, name: str) -> bool:
        """Return whether the tensor holds floating-point numbers."""
        return self.dtype_name(name) in _FLOATS


class TensorFile(TensorSource):
    """One safetensors file, mapped into memory.

    Args:
        path: The file.

    Raises:
        FileFormatError: If the file is empty, truncated, or not safetensors (a renamed pickle or archive, say). It is then not read further.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header, self._start = _read_header(self.path)
        self.metadata = header.pop("__metadata__", {})
        self._entries: dict[str, dict[str, Any]] = dict(sorted(header.items()))
        self._bytes: Array = np.memmap(self.path, dtype=np.uint8, mode="r") if self.path.stat().st_size else np.empty(0, np.uint8)
        size = len(self._bytes) - self._start
        for name, entry in self._entries.items():
            _check_entry(self.path, name, entry, size)

    def __getitem__(self, name: str) -> Array:
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        stored = self._bytes[self._start + begin : self._start + end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        return widen_bfloat16(stored) if entry["dtype"] == "BF16" else stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def dtype_name(self, name: str) -> str:
        """Return the stored type, for example ``"BF16"``."""
        return str(self._entries[name]["dtype"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape without reading the values."""
        return tuple(self._entries[name]["shape"])

    def files(self) -> tuple[Path, ...]:
        """Return the one file."""
        return (self.path,)


class TensorFolder(TensorSource):
    """A model folder: ``model.safetensors``, or shards with ``model.safetensors.index.json``.

    Raises:
        FileFormatError: If a shard is missing or broken.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        index = folder / "model.safetensors.index.json"
        if index.exists():
            names = sorted(set(read_json(index)["weight_map"].values()))
        else:
            names = sorted(path.name for path in folder.glob("*.safetensors"))
        missing = [name for name in names if not (folder / name).exists()]
        if missing or not names:
            raise FileFormatError(
                f"{folder} holds no complete safetensors model: {'missing ' + ', '.join(missing) if missing else 'no *.safetensors file'}. "
                "Give a .safetensors file, or a folder with model.safetensors or all shards of its index."
            )
        self._shards = [TensorFile(folder / name) for name in names]
        self._where = {name: shard for shard in self._shards for name in shard}
        self.metadata = {key: value for shard in self._shards for key, value in shard.metadata.items()}

    def __getitem__(self, name: str) -> Array:
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._where))

    def __len__(self) -> int:
        return len(self._where)

    def dtype_name(self, name: str) -> str:
        """Return the stored type, for example ``"BF16"``."""
        return self._where[name].dtype_name(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape without reading the values."""
        return self._where[name].shape(name)

    def files(self) -> tuple[Path, ...]:
        """Return the shards."""
        return tuple(shard.path for shard in self._shards)


def open_tensors(path: str | Path) -> TensorSource:
    """Open a safetensors file or a model folder.

    Raises:
        DataError: If nothing is there.
        FileFormatError: If it is broken or another format.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no model at {path}. Give a .safetensors file or a folder that holds one.")
    return TensorFolder(path) if path.is_dir() else TensorFile(path)


def write_tensors(
    path: str | Path,
    layout: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Iterable[tuple[str, Array]],
    metadata: Mapping[str, str] | None = None,
    corrections: Iterable[tuple[str, Array, Array]] = (),
    final_metadata: Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Write a safetensors file one tensor at a time, atomically.

    Args:
        path: Where to.
        layout: ``{name: (stored type, shape)}`` of all tensors.
        tensors: ``(name, values)`` of each, in any order; values are converted to the stored type.
        metadata: Text for the header.
        corrections: ``(name, flat indices, values)`` to overwrite; consumed after all tensors are written.
        final_metadata: Called at the end; its result replaces ``metadata`` and must be as long (hashes in place of zeros, say).

    Raises:
        StorageError: If the disk is full; an older file at ``path`` stays whole.
    """
    offsets: dict[str, int] = {}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: (-np.dtype(_DTYPES[item[1][0]]).itemsize, item[0])):
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(_DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        offsets[name] = position
        position += size
    text = _encode_header(header)
    start = 8 + len(text)
    with atomic_path(path) as temporary, open(temporary, "r+b") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        if position:
            os.posix_fallocate(out.fileno(), start, position) if hasattr(os, "posix_fallocate") else out.truncate(
                start + position
            )
        written = set()
        for name, values in tensors:
            _write_at(out, start + offsets[name], _to_stored(values, layout[name][0]))
            written.add(name)
        missing = sorted(set(layout) - written)
        if missing:
            raise DataError(f"Cannot write {path}: no values came for {', '.join(missing[:5])}.")
        for name, indices, values in corrections:
            stored = _to_stored(values, layout[name][0])
            for index, value in zip(indices.tolist(), stored):
                _write_at(out, start + offsets[name] + index * stored.itemsize, np.asarray(value))
        if final_metadata is not None:
            final = _encode_header({**header, "__metadata__": dict(final_metadata())})
            assert len(final) == len(text), "final metadata must be as long as the first"
            out.seek(8)
            out.write(final)
        out.flush()


def widen_bfloat16(bits: Array) -> NDArray[np.float32]:
    """Turn bfloat16 bits (uint16) into float32 values."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow_to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """Round float32 values to bfloat16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _encode_header(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _to_stored(values: Array, dtype: str) -> Array:
    if dtype == "BF16":
        return narrow_to_bfloat16(values)
    return np.ascontiguousarray(values, dtype=_DTYPES[dtype])


def _write_at(out: BinaryIO, position: int, values: Array) -> None:
    out.seek(position)
    out.write(values.reshape(-1).view(np.uint8).data)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    remedy = "Download or save the file again; graftwork reads safetensors only and never unpickles."
    if size == 0:
        raise FileFormatError(f"{path} is empty (0 bytes). {remedy}")
    with open(path, "rb") as source:
        start = source.read(8)
        if start[:1] == b"\x80" or start[:4] == b"PK\x03\x04":
            kind = "a pickle" if start[:1] == b"\x80" else "a zip archive, probably a PyTorch pickle"
            raise FileFormatError(
                f"{path} is {kind}, whatever its name says; it was not opened. Convert it to safetensors where you trust it."
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise FileFormatError(f"{path} is not a safetensors file, or it is truncated ({size} bytes). {remedy}")
        try:
            header = json.loads(source.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FileFormatError(f"{path} is not a safetensors file: its header is not JSON ({error}). {remedy}") from error
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is not a safetensors file: its header is no JSON object. {remedy}")
    return header, 8 + length


def _check_entry(path: Path, name: str, entry: Any, size: int) -> None:
    try:
        begin, end = entry["data_offsets"]
        expected = int(np.prod(entry["shape"], dtype=np.int64)) * np.dtype(_DTYPES[entry["dtype"]]).itemsize
    except (TypeError, KeyError, ValueError) as error:
        raise FileFormatError(
            f"{path}: the header's entry for {name!r} cannot be read ({error!r}). Save the file again."
        ) from error
    if not 0 <= begin <= end or end - begin != expected:
        raise FileFormatError(f"{path}: the header's entry for {name!r} contradicts itself: {entry}. Save the file again.")
    if end > size:
        raise FileFormatError(
            f"{path} is truncated: {name!r} ends at byte {end}, the data has {size}. Download or save it again."
        )

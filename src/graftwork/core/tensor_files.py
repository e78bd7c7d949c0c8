"""Safetensors files read and written tensor by tensor, without torch and without holding a model in memory.

The ``safetensors`` package reads lazily, but it writes whole models at once and its NumPy side knows no bfloat16; merging files
larger than memory needs both. This module reads and writes the published format (8 bytes of header length, a JSON header, raw
tensors) and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from graftwork.core.bfloat16 import BLOCK, WidenedTensor, narrow_to_bfloat16, widen_bfloat16
from graftwork.core.errors import DataError, FileFormatError
from graftwork.core.files import atomic_path
from graftwork.core.model_folder import model_files
from graftwork.core.tensor_header import BITS, encode_header, read_header

__all__ = [
    "FLOATS",
    "TensorFile",
    "TensorFolder",
    "TensorSource",
    "narrow_to_bfloat16",
    "open_tensors",
    "widen_bfloat16",
    "write_shards",
    "write_tensors",
]

Array = NDArray[Any]
Layout = Mapping[str, tuple[str, tuple[int, ...]]]

# Types that NumPy does not know keep their bytes: they are compared and copied, never computed with.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "|b1", "C64": "<c8", "F8_E5M2": "|u1", "F8_E4M3": "|u1", "F8_E8M0": "|u1",
    "F8_E4M3FNUZ": "|u1", "F8_E5M2FNUZ": "|u1",
}  # fmt: skip
_PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # less than a byte an entry: given and written as flat bytes
FLOATS = ("F64", "F32", "F16", "BF16")
"""Stored types whose values can be computed with."""


class TensorSource(Mapping[str, Array]):
    """Named tensors; ``source[name]`` gives NumPy values, bfloat16 widened to float32, without loading the others.

    Types of 8 bits and less that NumPy does not know (``F8_E4M3``, ``F4`` ...) are given as their bytes.
    """

    metadata: Mapping[str, str]

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Return whether there is such a tensor; what mappings do by default would widen it."""

    @abstractmethod
    def dtype_name(self, name: str) -> str:
        """Return the stored type as safetensors calls it, for example ``"BF16"``."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape without reading the values."""

    @abstractmethod
    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return values like ``source[name]``, but bfloat16 is widened only slice by slice; see :class:`.WidenedTensor`."""

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Return the files behind this source."""

    @abstractmethod
    def release(self, name: str) -> None:
        """Give the memory back into which a tensor was mapped; values that are looked at again are mapped again."""

    def is_float(self, name: str) -> bool:
        """Return whether the tensor holds floating-point numbers."""
        return self.dtype_name(name) in FLOATS


class TensorFile(TensorSource):
    """One safetensors file, mapped into memory.

    Args:
        path: The file.

    Raises:
        FileFormatError: If the file is empty, truncated, or not safetensors (a renamed pickle or archive, say). It is then not
            read further.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header = read_header(self.path)
        self.metadata = header.metadata
        self._entries = header.entries
        self._start = header.start
        with open(self.path, "rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes: Array = np.frombuffer(self._mapped, np.uint8)
        # Views only, nothing is read yet: a bad shape fails now and not in the middle of a merge.
        for name, entry in self._entries.items():
            try:
                self._stored(name)
            except ValueError as error:  # more dimensions, or larger ones beside a 0, than NumPy can hold
                raise FileFormatError(
                    f"{self.path}: {name!r} has a shape that cannot be used, {entry.shape}: {error}."
                ) from error

    def __getitem__(self, name: str) -> Array:
        stored = self._stored(name)
        return widen_bfloat16(stored) if self._entries[name].dtype == "BF16" else stored

    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return values, bfloat16 widened slice by slice."""
        stored = self._stored(name)
        return WidenedTensor(stored) if self._entries[name].dtype == "BF16" else stored

    def _stored(self, name: str) -> Array:
        entry = self._entries[name]
        raw = self._bytes[self._start + entry.begin : self._start + entry.end]
        return raw if entry.dtype in _PACKED else raw.view(_DTYPES[entry.dtype]).reshape(entry.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def dtype_name(self, name: str) -> str:
        """Return the stored type, for example ``"BF16"``."""
        return self._entries[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape without reading the values."""
        return self._entries[name].shape

    def release(self, name: str) -> None:
        """Give the pages of a tensor back. They stay in the system's cache of files, but no longer count for this process."""
        entry = self._entries[name]
        # From the page where it begins: a neighbour's part of that page is mapped again, too, when it is looked at.
        begin = (self._start + entry.begin) // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and entry.end > entry.begin:
            self._mapped.madvise(mmap.MADV_DONTNEED, begin, self._start + entry.end - begin)

    def files(self) -> tuple[Path, ...]:
        """Return the one file."""
        return (self.path,)


class TensorFolder(TensorSource):
    """A model folder: ``model.safetensors``, or shards with ``model.safetensors.index.json``; see :func:`.model_files`.

    Raises:
        FileFormatError: If the index or a shard is missing or broken, or it is not clear which file is the model.
    """

    def __init__(self, folder: str | Path) -> None:
        files, listed = model_files(Path(folder))
        self._shards = [TensorFile(path) for path in files]
        by_name = {shard.path.name: shard for shard in self._shards}
        self._where: dict[str, TensorFile] = {}
        for shard in self._shards:
            for name in shard:
                # An index may settle which of two copies counts; without one the choice would depend on the order of files.
                if name in self._where and name not in listed:
                    raise FileFormatError(
                        f"{folder}: the tensor {name!r} is in {self._where[name].path.name} and in {shard.path.name}. "
                        "Leave one of them out, or save the model again."
                    )
                self._where[name] = shard
        lost = [name for name, shard in listed.items() if name not in by_name[shard]]
        if lost:
            raise FileFormatError(
                f"{folder}: the index says that {len(lost)} tensors are in a shard that does not hold them: "
                f"{', '.join(f'{name!r} in {listed[name]}' for name in lost[:3])}. Download or save the model again."
            )
        self._where |= {name: by_name[shard] for name, shard in listed.items()}
        self.metadata = {key: value for shard in self._shards for key, value in shard.metadata.items()}

    def __getitem__(self, name: str) -> Array:
        return self._where[name][name]

    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return values, bfloat16 widened slice by slice."""
        return self._where[name].lazy(name)

    def __contains__(self, name: object) -> bool:
        return name in self._where

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

    def release(self, name: str) -> None:
        """Give the pages of a tensor back."""
        self._where[name].release(name)

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
    if not os.path.exists(path):
        raise DataError(f"There is no model at {path}. Give a .safetensors file or a folder that holds one.")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder. Give a .safetensors file or a folder that holds one.")
    return TensorFolder(path) if path.is_dir() else TensorFile(path)


def write_tensors(
    path: str | Path,
    layout: Layout,
    tensors: Iterable[tuple[str, Array | WidenedTensor]],
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
    write_shards({Path(path): layout}, tensors, metadata, corrections, final_metadata)


def write_shards(
    layouts: Mapping[Path, Layout],
    tensors: Iterable[tuple[str, Array | WidenedTensor]],
    metadata: Mapping[str, str] | None = None,
    corrections: Iterable[tuple[str, Array, Array]] = (),
    final_metadata: Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Write a model into several safetensors files; none of them is there before all are whole.

    Args:
        layouts: What goes into each file, as for :func:`write_tensors`, which says what the other arguments are; each file has the
            metadata.
        tensors: See there; all those of all files, in any order.
        metadata: See there.
        corrections: See there.
        final_metadata: See there.

    Raises:
        StorageError: If the disk is full; older files stay whole.
    """
    with contextlib.ExitStack() as stack:
        files = [_OpenFile(stack, path, layout, metadata) for path, layout in layouts.items()]
        where = {name: file for file in files for name in file.layout}
        written = set()
        for name, values in tensors:
            where[name].write(name, values)
            written.add(name)
        missing = sorted(set(where) - written)
        if missing:
            raise DataError(f"Cannot write {next(iter(layouts))}: no values came for {', '.join(missing[:5])}.")
        # The maps below read the file, not Python's buffer.
        for file in files:
            file.out.flush()
        for name, indices, values in corrections:
            where[name].correct(name, indices, values)
        if final_metadata is not None:
            # The disk works while what the final text tells of is still computed.
            for file in files:
                os.fsync(file.out.fileno())
            final = final_metadata()
            for file in files:
                file.write_header(final)
        for file in files:
            file.out.flush()


class _OpenFile:
    """A safetensors file that is being written beside its place, to which the stack renames it in the end."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, layout: Layout, metadata: Mapping[str, str] | None) -> None:
        self.layout = layout
        self._header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        self._offsets: dict[str, int] = {}
        position = 0
        # Widest types first, then by name, as the library writes: each tensor begins at a multiple of its item size.
        for name, (dtype, shape) in sorted(layout.items(), key=lambda item: (-BITS[item[1][0]], item[0])):
            size = math.prod(shape) * BITS[dtype] // 8
            self._header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
            self._offsets[name] = position
            position += size
        text = encode_header(self._header)
        self._start = 8 + len(text)
        self._temporary = stack.enter_context(atomic_path(path))
        self.out = stack.enter_context(open(self._temporary, "r+b"))  # noqa: SIM115 # the stack closes it
        self.out.write(len(text).to_bytes(8, "little") + text)
        # Reserved at once, so that a full disk fails before the work and not after. A length of 0 is refused by the system.
        if position:
            os.posix_fallocate(self.out.fileno(), self._start, position) if hasattr(os, "posix_fallocate") else self.out.truncate(
                self._start + position
            )

    def write(self, name: str, values: Array | WidenedTensor) -> None:
        """Write a tensor to its place."""
        _write_at(self.out, self._start + self._offsets[name], values, self.layout[name][0])

    def correct(self, name: str, indices: Array, values: Array) -> None:
        """Overwrite entries of a tensor that was written."""
        stored = _to_stored(values, self.layout[name][0])
        place, size = self._start + self._offsets[name], math.prod(self.layout[name][1])
        mapped = np.memmap(self._temporary, stored.dtype, "r+", offset=place, shape=(size,))
        mapped[indices] = stored
        mapped.flush()

    def write_header(self, metadata: Mapping[str, str]) -> None:
        """Replace the metadata by one that is as long."""
        final = encode_header({**self._header, "__metadata__": dict(metadata)})
        assert 8 + len(final) == self._start, "final metadata must be as long as the first"
        self.out.seek(8)
        self.out.write(final)


def _to_stored(values: Array, dtype: str) -> Array:
    if dtype == "BF16":
        return narrow_to_bfloat16(values)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite; the caller looks for that
        return np.ascontiguousarray(values, dtype="|u1" if dtype in _PACKED else _DTYPES[dtype])


def _write_at(out: BinaryIO, position: int, values: Array | WidenedTensor, dtype: str) -> None:
    """Convert and write block by block, so that no second copy of a tensor is held."""
    out.seek(position)
    # Widening and narrowing again would give the same bits, slower.
    if isinstance(values, WidenedTensor) and dtype == "BF16":
        out.write(np.ascontiguousarray(values.bits).reshape(-1).view(np.uint8).data)
        return
    flat = values.reshape(-1)
    for begin in range(0, flat.size, BLOCK):
        out.write(_to_stored(flat[begin : begin + BLOCK], dtype).view(np.uint8).data)

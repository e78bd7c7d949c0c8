"""Headers of safetensors files: read, checked by the rules of the ``safetensors`` library, and written.

The library's verdict counts: a header that it refuses is refused here too, with an error that names file, tensor and value. Its
parser is stricter than Python's (no NaN, no ``-0`` as an integer, no lone surrogates, no deep nesting), and tensors must fill
the data without overlap, hole or rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError

__all__ = ["BITS", "Entry", "Header", "encode_header", "read_header", "with_sorted_texts"]

BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6,
    "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one entry of each stored type."""

# The limit of the safetensors library.
_LARGEST_HEADER = 100_000_000
_LARGEST_INTEGER = 2**64 - 1
_DEEPEST = 127  # the library's JSON parser gives up at 128 levels, of which the outermost object is one
_REMEDY = "Download or save the file again; graftwork reads safetensors only and never unpickles."


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file."""

    dtype: str
    """Stored type, a key of :data:`BITS`."""
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the end of the header."""
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int
    """Where the data begins, in bytes from the start of the file."""


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Return a header as JSON, padded with spaces to a multiple of 8 bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def with_sorted_texts(content: bytes) -> bytes:
    """Return a safetensors file with the texts of its header in the order of their names.

    The library writes them in an order that changes from process to process; equal models are to give equal files.

    Args:
        content: A file as the library's ``save`` gives it.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = encode_header(header)
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_header(path: Path) -> Header:
    """Read and check the header of a file.

    Raises:
        FileFormatError: If the file is empty, truncated, damaged, or not safetensors (a renamed pickle or archive, say). It is
            then not read further.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as source:
            first = source.read(8)
            length = _header_length(path, first, size)
            text = source.read(length)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}. Check its permissions and the disk.") from error
    table = _parse(path, text)
    metadata = _metadata(path, table.pop("__metadata__", None))
    entries = {name: _entry(path, name, value) for name, value in table.items()}
    _check_layout(path, entries, size - 8 - length)
    return Header(dict(sorted(entries.items())), metadata, 8 + length)


def _header_length(path: Path, first: bytes, size: int) -> int:
    if size == 0:
        raise FileFormatError(f"{path} is empty (0 bytes). {_REMEDY}")
    length = int.from_bytes(first, "little")
    # The shortest header is ``{}``.
    if len(first) == 8 and 2 <= length <= min(_LARGEST_HEADER, size - 8):
        return length  # asked first: the length of one header in 256 begins with the byte that pickles begin with
    if first[:1] == b"\x80" or first[:4] == b"PK\x03\x04":
        kind = "a pickle" if first[:1] == b"\x80" else "a zip archive, probably a PyTorch pickle"
        raise FileFormatError(
            f"{path} is {kind}, whatever its name says; it was not opened. Convert it to safetensors where you trust it."
        )
    raise FileFormatError(f"{path} is not a safetensors file, or it is truncated ({size} bytes). {_REMEDY}")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        # decoded first: given bytes, Python's parser would also take UTF-16 and a byte order mark
        table = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_table,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_refuse_constant,
        )
        if isinstance(table, dict):
            _check_values(table)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FileFormatError(f"{path} is not a safetensors file: its header is not JSON ({reason[:200]}). {_REMEDY}") from error
    if not isinstance(table, dict):
        raise FileFormatError(f"{path} is not a safetensors file: its header is no JSON object. {_REMEDY}")
    return table


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # of tensors with one name the last counts, as in the library; of these fields there is one
        keys = [key for key, _ in pairs]
        twice = [key for key in ("__metadata__", "dtype", "shape", "data_offsets") if keys.count(key) > 1]
        if twice and not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"the key {twice[0]!r} comes twice")
    return found


def _integer(text: str) -> int | float:
    # No field takes negative or longer numbers. As floats they are refused where an index is asked for, and nowhere else.
    if text.startswith("-") or len(text) > 20:
        return _number(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    # 1e999 is infinite to Python and an error to the library.
    if math.isinf(value):
        raise ValueError(f"a number of {len(text)} digits is out of range")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _check_values(table: dict[str, Any]) -> None:
    """Refuse what Python's parser takes and the library's does not: half a surrogate pair, and nesting without need."""
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        inside = [item for value in level for item in ([*value, *value.values()] if isinstance(value, dict) else value)]
        for text in inside:
            # Nearly all names are ASCII, which spares the look at each letter.
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError(f"the text {text[:60]!r} is not valid Unicode")
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _metadata(path: Path, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FileFormatError(
            f"{path}: `__metadata__` in the header holds something other than texts: {_short(value)}. {_REMEDY}"
        )
    return value


def _entry(path: Path, name: str, value: Any) -> Entry:
    def refuse(what: str) -> FileFormatError:
        return FileFormatError(f"{path}: the header's entry for {_short(name)} cannot be read: {what}. Save the file again.")

    if not isinstance(value, dict):
        raise refuse(f"it is {_short(value)}, not an object with dtype, shape and data_offsets")
    missing = [key for key in ("dtype", "shape", "data_offsets") if key not in value]
    if missing:
        raise refuse(f"it has no {missing[0]}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise refuse(f"dtype is {_short(dtype)}, which is none of {', '.join(sorted(BITS))}")
    if not isinstance(shape, list) or not all(_is_index(size) for size in shape):
        raise refuse(f"shape is {_short(shape)}; it must be a list of integers of at least 0, below 2**64")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_index(offset) for offset in offsets):
        raise refuse(f"data_offsets is {_short(offsets)}; it must be two integers of at least 0")
    return Entry(dtype, tuple(shape), *offsets)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INTEGER


def _num_bits(entry: Entry) -> int | None:
    """Return the bits that a tensor needs, None where 64-bit arithmetic overflows, as it would in the library."""
    count = 1
    for size in entry.shape:
        count *= size
        if count > _LARGEST_INTEGER:
            return None
    count *= BITS[entry.dtype]
    return count if count <= _LARGEST_INTEGER else None


def _check_layout(path: Path, entries: Mapping[str, Entry], size: int) -> None:
    """Every tensor begins where the one before ends, holds what its shape needs, and the last ends with the file."""
    position, previous = 0, ""
    # An empty tensor begins where the next one begins; the end sorts it first.
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        place = f"{path}: the header's entry for {_short(name)} contradicts itself"
        bits = _num_bits(entry)
        if bits is None:
            raise FileFormatError(f"{place}: shape {_short(list(entry.shape))} is too large for any file. Save the file again.")
        if entry.end < entry.begin or (entry.end - entry.begin) * 8 != bits:
            raise FileFormatError(
                f"{place}: {entry.dtype} of shape {_short(list(entry.shape))} needs {bits / 8:g} bytes, "
                f"data_offsets [{entry.begin}, {entry.end}] hold {entry.end - entry.begin}. Save the file again."
            )
        if entry.begin != position:
            what = "overlaps" if entry.begin < position else f"leaves {entry.begin - position} unused bytes behind"
            before = f"{_short(previous)}, which ends" if previous else "the header, which ends"
            raise FileFormatError(
                f"{path}: {_short(name)} begins at byte {entry.begin} and {what} {before} at {position}. Save the file again."
            )
        if entry.end > size:
            raise FileFormatError(
                f"{path} is truncated: {_short(name)} ends at byte {entry.end}, the data has {size}. Download or save it again."
            )
        position, previous = entry.end, name
    if position != size:
        raise FileFormatError(
            f"{path} has {size - position} bytes after its last tensor that no header entry names. Download or save it again."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

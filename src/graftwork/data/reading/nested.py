"""Records and vectors in the cells of a table: fields become columns (``place.lat``), entries of vectors too
(``embedding[3]``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.names import short_list

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["entry_name", "find_cell", "flatten_records", "split_entry", "vectors_of"]

MAX_FIELDS = 500
"""Fields of the records in one column; with more, their names are data, not columns."""
MAX_ENTRIES = 4096
"""Entries of a vector that become columns."""
_MAX_DEPTH = 10
_ENTRY = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)


def entry_name(column: str, index: int) -> str:
    """Return the name of one entry of a vector column."""
    return f"{column}[{index}]"


def split_entry(name: str) -> tuple[str, int] | None:
    """Return the column and the index that :func:`entry_name` made a name of, or None.

    Example:
        >>> split_entry("embedding[3]"), split_entry("price")
        (('embedding', 3), None)
    """
    found = _ENTRY.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def flatten_records(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which columns of records have become one column a field, with a note in ``attrs["notes"]``.

    Raises:
        DataError: If a field would be called like another column.
    """
    # Only object columns can hold records, and looking at their cells takes time.
    names = [name for name in frame.columns if frame[name].dtype == object and dict in set(map(type, frame[name].tolist()))]
    if not names:
        return frame
    pandas = require("pandas", extra="data", purpose="Reading tables")
    columns: dict[Any, Any] = {}
    notes = list(frame.attrs.get("notes", []))
    for name in frame.columns:
        fields = _fields(str(name), frame[name].tolist()) if name in names else None
        # Cells of several sorts, or far too many fields: the column stays as it is, and is dropped later with a note.
        if fields is None:
            columns[name] = frame[name]
            continue
        notes.append(f"Column {name!r} holds records; their fields are read as columns: {short_list(fields, 8)}.")
        taken = sorted(field for field in fields if field in columns or field in frame.columns)
        if taken:
            raise DataError(
                f"The fields of column {name!r} would be called {short_list(taken)}, like other columns. Rename one of them."
            )
        columns |= {field: _typed(pandas, cells, frame.index) for field, cells in fields.items()}
    flat = pandas.DataFrame(columns, index=frame.index)
    flat.attrs = {**frame.attrs, "notes": notes}
    return flat


def _typed(pandas: Any, cells: list[Any], index: Any) -> Any:
    """Return cells as a column: numbers as numbers, everything else as it is."""
    types = {type(cell) for cell in cells} - {type(None)}
    if types == {float}:
        return pandas.Series(cells, index=index, dtype="float64")
    # Int64 keeps whole numbers whole beside gaps; larger ones than 2^63 stay objects.
    if types == {bool} or (types == {int} and all(cell is None or abs(cell) < 2**63 for cell in cells)):
        return pandas.Series(cells, index=index, dtype="boolean" if types == {bool} else "Int64")
    return pandas.Series(cells, index=index, dtype=object)


def _fields(name: str, cells: Sequence[Any]) -> dict[str, list[Any]] | None:
    """Return ``{name.field: cells}``; None if cells are something else than records, or there are too many fields."""
    if any(not isinstance(cell, dict) for cell in cells if not _is_missing(cell)):
        return None
    fields: dict[str, list[Any]] = {}
    for row, cell in enumerate(cells):
        # A missing record has no fields; the cells of its row stay None.
        for field, value in _leaves(name, {} if _is_missing(cell) else cell, 0):
            fields.setdefault(field, [None] * len(cells))[row] = value
        # Asked in each row, so that a million names do not first fill the memory.
        if len(fields) > MAX_FIELDS:
            return None
    return fields or None


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell)) or type(cell).__name__ in ("NAType", "NaTType")


def _leaves(name: str, record: Mapping[Any, Any], depth: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in record.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            found += _leaves(f"{name}.{key}", value, depth + 1)
        else:
            found.append((f"{name}.{key}", value))
    return found


def vectors_of(cells: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return a column's cells as ``[N, L]``, NaN rows where missing; None if they are no lists of equally many numbers, two or
    more."""
    known = [index for index, cell in enumerate(cells) if not _is_missing(cell)]
    lengths = {len(cells[index]) if isinstance(cells[index], (list, tuple, np.ndarray)) else 0 for index in known}
    # One number in a list is no vector but a list that happens to be short.
    if len(lengths) != 1 or not 2 <= next(iter(lengths)) <= MAX_ENTRIES:
        return None
    length = lengths.pop()
    flat = [np.nan if _is_missing(value) else value for index in known for value in cells[index]]
    # Texts of digits would become numbers without a word.
    if any(isinstance(value, str) or not np.isscalar(value) for value in flat):
        return None
    vectors = np.full((len(cells), length), np.nan)
    vectors[known] = np.asarray(flat, dtype=np.float64).reshape(len(known), length)
    return vectors


def find_cell(item: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether a row given as an object has a column, and its cell; fields and entries are looked up in their records and
    vectors.

    Example:
        >>> find_cell({"place": {"lat": 1.5}, "v": [7, 8]}, "place.lat"), find_cell({"v": [7, 8]}, "v[1]"), find_cell({}, "x")
        ((True, 1.5), (True, 8), (False, None))
    """
    if name in item:
        return True, item[name]
    # A name may hold dots itself, so every dot is tried as the end of a record's name.
    for end in (index for index, letter in enumerate(name) if letter == "."):
        if name[:end] in item:
            inner = item[name[:end]]
            if inner is None:
                return True, None
            if isinstance(inner, Mapping):
                found, value = find_cell(inner, name[end + 1 :])
                if found:
                    return True, value
    entry = split_entry(name)
    if entry is not None:
        found, vector = find_cell(item, entry[0])
        if found and (vector is None or (isinstance(vector, (list, tuple)) and entry[1] < len(vector))):
            return True, None if vector is None else vector[entry[1]]
    return False, None

"""Cells as they stand: what a cell is called, which cells are missing, and columns of all dtypes brought to a few."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.data.reading.surrogates import valid_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BLANK_WORDS",
    "NESTED_TYPES",
    "arrow_to_pandas",
    "as_text",
    "is_blank",
    "machine_dates",
    "machine_numbers",
    "missing_notes",
    "number_codes",
    "plain_cells",
    "shown_cells",
    "text_codes",
]

BLANK_WORDS = frozenset(
    [
        "na",
        "n/a",
        "#n/a",
        "#na",
        "n.a.",
        "<na>",
        "nan",
        "-nan",
        "nat",
        "null",
        "(null)",
        "none",
        "nil",
        "?",
        "??",
        "-",
        "--",
        "---",
        ".",
        "..",
        "...",
        "*",
        "–",
        "—",
        "unknown",
        "unk",
        "missing",
        "undefined",
        "#null!",
        "#value!",
        "#div/0!",
        "-1.#ind",
        "1.#ind",
        "-1.#qnan",
        "1.#qnan",
    ]
) | {"not available", "not applicable", "not known", "#n/a n/a"}
"""Words, in lower case, that stand for a missing cell among numbers and dates. Among words they are values: there, only the
empty cell is missing."""
_MISSING_TYPES = ("NAType", "NaTType")


def is_blank(text: str) -> bool:
    """Return whether a text stands for a missing cell in a column of numbers or dates."""
    return text.lower() in BLANK_WORDS


NESTED_TYPES = (list, tuple, dict, set, frozenset, np.ndarray)
"""Types of cells that hold several values."""


def as_text(value: Any) -> str | None:
    """Return a table cell as the text that names its class or level, or None if it is missing.

    Whole floats lose their ``.0``, so that ``3`` and ``3.0`` (a column with missing cells) are one class. Bytes are read as
    UTF-8.
    """
    # The exact type first: nearly all cells are plain texts, and this is called for each of them.
    if type(value) is str:
        return value.strip() or None
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return None
    # Up to 2^53 floats hold whole numbers exactly; beyond that `int` would show digits that nobody wrote.
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(float(value)) < 2**53:
        return str(int(value))
    if type(value).__name__ in _MISSING_TYPES:  # pandas' own missing values, named here to need no pandas
        return None
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", errors="replace").strip() or None
    return str(value).strip() or None


def number_codes(values: pd.Series) -> tuple[NDArray[np.int64], list[int | float]] | None:
    """Return a column of machine numbers as level numbers ``[N]``, -1 where missing, and the different numbers in order of
    appearance: :func:`text_codes` without the texts. None if it has cells that only those can tell apart."""
    pandas = require("pandas", extra="data", purpose="Reading tables")
    codes, cells = pandas.factorize(values)
    # Nullable columns may hold a NaN beside their missing cells.
    if pandas.isna(cells).any():
        return None
    return np.asarray(codes, dtype=np.int64), cells.tolist()


def text_codes(values: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column as level numbers ``[N]``, -1 where missing, and the levels in order of appearance, named by
    :func:`as_text`."""
    pandas = require("pandas", extra="data", purpose="Reading tables")
    values = plain_cells(values)
    codes: Any
    cells: Any
    try:
        codes, cells = pandas.factorize(values)
    except TypeError:  # lists cannot be hashed
        cells = values.tolist()
        codes = np.arange(len(cells))
    if hasattr(cells, "tolist"):
        cells = cells.tolist()
    if set(map(type, cells)) == {str}:
        # The quick way: no two texts become equal by trimming, so the codes can stay.
        trimmed = list(map(str.strip, cells))
        if (trimmed == cells or len(set(trimmed)) == len(trimmed)) and "" not in trimmed:
            return _with_valid_texts(np.asarray(codes, dtype=np.int64), trimmed)
    levels: dict[str, int] = {}
    numbers = np.full(len(cells) + 1, -1, dtype=np.int64)  # the last one serves code -1
    for index, cell in enumerate(cells):
        text = as_text(cell)
        if text is not None:
            numbers[index] = levels.setdefault(text, len(levels))
    return _with_valid_texts(numbers[np.asarray(codes, dtype=np.int64)], list(levels))


def _with_valid_texts(codes: NDArray[np.int64], levels: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return levels without lone surrogates; those that are equal then become one."""
    try:
        # One attempt for all: lone surrogates are rare and make the whole text unencodable.
        "".join(levels).encode("utf-8")
    except UnicodeEncodeError:
        merged: dict[str, int] = {}
        numbers = np.array([*(merged.setdefault(valid_text(level), len(merged)) for level in levels), -1], dtype=np.int64)
        return numbers[codes], list(merged)
    return codes, levels


def plain_cells(values: pd.Series) -> pd.Series:
    """Return the same cells in a dtype that the readers know.

    Arrow columns become NumPy's or pandas' nullable ones with their integers kept, half-precision floats double ones, periods
    their beginning, sparse columns dense ones. Everything else stays as it is.
    """
    pandas = require("pandas", extra="data", purpose="Reading tables")
    dtype = values.dtype
    name = type(dtype).__name__
    if name == "ArrowDtype":
        return _from_arrow(values)
    if name == "SparseDtype":
        # Dense cells may need a change of their own.
        return plain_cells(pandas.Series(np.asarray(values), index=values.index, name=values.name))
    if name == "PeriodDtype":
        return values.dt.to_timestamp()
    if name == "Float16Dtype" or dtype == np.float16:
        return values.astype(np.float64)
    return values


def _from_arrow(values: pd.Series) -> pd.Series:
    pandas = require("pandas", extra="data", purpose="Reading tables")
    arrow = require("pyarrow", extra="data", purpose="Reading Arrow columns")
    array = arrow.chunked_array([values.array.__arrow_array__()]) if len(values) else arrow.chunked_array([[]])
    if arrow.types.is_float16(array.type):
        array = array.cast(arrow.float32())
    cells = arrow_to_pandas(array)
    return pandas.Series(cells.array, index=values.index, name=values.name)


def arrow_to_pandas(data: Any) -> Any:
    """Return an Arrow table or chunked array as a DataFrame or Series, with integers, booleans and dates kept where cells are
    missing.

    Raises:
        pyarrow.ArrowInvalid: If texts are no UTF-8, or the buffers do not belong together: later on it would be any other error.
    """
    data.validate(full=True)
    pandas = require("pandas", extra="data", purpose="Reading Arrow columns")
    arrow = require("pyarrow", extra="data", purpose="Reading Arrow columns")
    sizes = (8, 16, 32, 64)
    # Without a mapper integers with gaps become floats, and large ids lose their last digits.
    kept = {getattr(arrow, f"int{size}")(): getattr(pandas, f"Int{size}Dtype")() for size in sizes}
    kept |= {getattr(arrow, f"uint{size}")(): getattr(pandas, f"UInt{size}Dtype")() for size in sizes}
    kept[arrow.bool_()] = pandas.BooleanDtype()
    return data.to_pandas(types_mapper=kept.get, date_as_object=False)


def machine_numbers(cells: pd.Series) -> NDArray[np.float64]:
    """Return a column of numbers, flags or durations (in seconds) as float64 ``[N]``, NaN where missing."""
    if cells.dtype.kind == "m":
        return np.asarray(cells.dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(cells.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))


def machine_dates(cells: pd.Series) -> NDArray[np.float64]:
    """Return a column of dates as seconds since 1970 (UTC), float64 ``[N]``, NaN where missing."""
    if cells.dt.tz is not None:
        # Dates without a zone are taken as UTC, so those with one become UTC.
        cells = cells.dt.tz_convert("UTC").dt.tz_localize(None)
    known = cells.notna().to_numpy()
    seconds = np.full(len(cells), np.nan)
    seconds[known] = cells[known].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1000.0
    return seconds


def shown_cells(texts: Sequence[str], most: int = 3) -> str:
    """Return examples of cells for a message: quoted, cut after 40 characters each."""
    parts = [repr(text if len(text) <= 40 else f"{text[:37]}...") for text in texts[:most]]
    return ", ".join(parts)


def missing_notes(found: Mapping[str, Counter[str]]) -> list[str]:
    """Return one sentence per column whose cells count as missing although they are not empty.

    Args:
        found: Those cells with the rows of each, by column.
    """
    return [
        f"Column {name!r}: {words.total()} cell{'s' if words.total() > 1 else ''} such as "
        f"{shown_cells([word for word, _ in words.most_common(3)])} cannot be read and count{'' if words.total() > 1 else 's'} "
        f"as missing."
        for name, words in found.items()
    ]

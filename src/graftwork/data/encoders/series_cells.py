"""Cells that hold a series: lists of numbers or of moments, arrays, or texts of them, brought into one array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["SERIES_FORM", "fill_rows", "moments_of", "numbers_of", "read_all"]

SERIES_FORM = "a list of numbers (null where unknown), or a text of them separated by spaces, commas, semicolons or '|'"
"""What a cell of a series holds, for messages."""
_SEPARATORS = re.compile(r"\s*[,;|]\s*|\s+")
_UNKNOWN = frozenset({"", "null", "none", "nan", "na"})


def numbers_of(cell: Any, *, channels: int = 1) -> NDArray[np.float64]:
    """Return the numbers of a cell, float64 ``[steps, channels]``, NaN where unknown.

    Args:
        cell: A list, an array or a text; None is a series without any step. Of several channels, a list with one list of
            numbers a step.
        channels: Number of channels.

    Raises:
        ValueError: If it holds something else, or an infinite number; the message says what.
    """
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return np.zeros((0, channels))
    items = _split(cell) if isinstance(cell, str) else cell
    if isinstance(items, bool | int | float | dict | bytes) or not hasattr(items, "__len__"):
        raise ValueError("it is no list")
    try:
        values = np.asarray(items, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError):
        raise ValueError("it holds something that is no number, or its steps have different numbers of channels") from None
    if values.size == 0:
        return np.zeros((0, channels))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != channels:
        wanted = "one number a step" if channels == 1 else f"a list of {channels} numbers for each step"
        raise ValueError(f"it has the shape {values.shape}, and {wanted} is needed")
    if np.isinf(values).any():
        raise ValueError("it holds an infinite number")
    return values


def _split(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # a list that Python or NumPy printed
    # `[1 2 3]` is how NumPy prints arrays.
    inner = text.strip().removeprefix("[").removesuffix("]").strip()
    words = _SEPARATORS.split(inner) if inner else []
    try:
        return [None if word.lower() in _UNKNOWN else float(word) for word in words]
    except ValueError:
        raise ValueError("it holds something that is no number") from None


def moments_of(cell: Any) -> NDArray[np.float64]:
    """Return the moments of a cell in seconds, float64 ``[steps]``: numbers are seconds, texts are dates in ISO form.

    Args:
        cell: A list, an array, or a text of a list; None is a series without any step.

    Raises:
        ValueError: If one is missing or cannot be read.
    """
    items = _moments_in(cell) if isinstance(cell, str) else cell
    if _are_dates(items):
        try:
            moments = np.asarray(items, dtype="datetime64[ms]")
        except (TypeError, ValueError):
            raise ValueError("it holds something that is no date such as 2026-01-31 or 2026-01-31T12:00:00") from None
        # Milliseconds to seconds.
        found = moments.astype(np.int64) / 1000.0
        missing = np.isnat(moments)
    else:
        found = numbers_of(items)[:, 0]
        missing = np.isnan(found)
    if missing.any():
        raise ValueError("a moment is missing")
    return found


def _are_dates(items: Any) -> bool:
    if isinstance(items, np.ndarray) and items.dtype != object:
        return items.dtype.kind in "MU"
    return isinstance(items, Sequence | np.ndarray) and any(isinstance(item, str) for item in items)


def _moments_in(text: str) -> Any:
    """Return the numbers of a text, else what it holds as dates, None where one is unknown."""
    try:
        return numbers_of(text)
    except ValueError:
        inner = text.strip().removeprefix("[").removesuffix("]").strip()
        # White space separates dates only where nothing else does: a date and its hour may have some between them.
        words = re.split(r"\s*[,;|]\s*" if re.search(r"[,;|]", inner) else r"\s+", inner)
        # Quotes are those of a list in JSON or as Python prints it.
        bare = [word.strip("\"'") for word in words]
        return [None if word.lower() in _UNKNOWN else word for word in bare]


def fill_rows(rows: Sequence[NDArray[np.float64]], length: int, channels: int) -> NDArray[np.float64]:
    """Return rows ``[steps, channels]`` of any length in one array ``[N, length, channels]``: the last ``length`` steps of each,
    at the end; NaN in front of shorter ones."""
    # `row[-length:]` is the whole row where it is shorter.
    kept = [row[-length:] for row in rows]
    sizes = np.fromiter(map(len, kept), dtype=np.int64, count=len(kept))
    owner = np.repeat(np.arange(len(kept)), sizes)
    # Number within the row, shifted so that the last step stands in the last place.
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + length - sizes[owner]
    filled = np.full((len(kept), length, channels), np.nan)
    if len(owner):
        filled[owner, place] = np.concatenate(kept)
    return filled


def read_all(cells: Iterable[Any], what: str, read: Any) -> list[Any]:
    """Return what ``read`` makes of each cell.

    Raises:
        DataError: If some cannot be read; the message counts them and quotes the first.
    """
    found, wrong = [], []
    for number, cell in enumerate(cells):
        try:
            found.append(read(cell))
        except ValueError as error:
            wrong.append((number, cell, str(error)))
    if wrong:
        number, cell, reason = wrong[0]
        raise DataError(
            f"{len(wrong)} cells of {what} cannot be read as a series. The first is in row {number}, {cell!r:.80}: {reason}. "
            f"Give {SERIES_FORM}."
        )
    return found

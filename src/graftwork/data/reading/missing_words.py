"""Words and numbers that the user says mean a missing cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.cells import NESTED_TYPES, as_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["blank_words", "is_missing_word", "missing_numbers", "without_words"]

Floats = NDArray[np.float64]


def missing_numbers(words: Sequence[str]) -> tuple[float, ...]:
    """Return those of the words that are numbers.

    Example:
        >>> missing_numbers(["?", "-999"])
        (-999.0,)
    """
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            continue
    return tuple(found)


def is_missing_word(text: str, words: Sequence[str]) -> bool:
    """Return whether a text is one of the words, or the same number (``-999.0`` for ``-999``)."""
    return text.strip() in words or bool(set(missing_numbers([text])) & set(missing_numbers(words)))


def blank_words(numbers: Floats, words: Sequence[str]) -> Floats:
    """Return numbers with NaN for those that mean a missing cell."""
    return np.where(np.isin(numbers, missing_numbers(words)), np.nan, numbers) if words else numbers


def without_words(frame: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Return a table whose cells are empty where they hold one of the words; cells with lists stay.

    Args:
        frame: The raw table.
        words: As the user writes them; a number stands for all ways of writing it.
    """
    if not words:
        return frame
    changed: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        kind = getattr(column.dtype, "kind", "O")
        if kind in "bMm":
            continue
        lost = column.isin(missing_numbers(words)) if kind in "iuf" else _holding(column, words)
        if lost.any():
            # Integers become nullable ones: as floats large ids would lose digits.
            nullable: Any = {"i": "Int64", "u": "UInt64"}.get(kind)
            changed[name] = (column.astype(nullable) if nullable else column).mask(lost.astype(bool))
    if not changed:
        return frame
    made = frame.assign(**changed)
    made.attrs = dict(frame.attrs)
    return made


def _holding(column: pd.Series, words: Sequence[str]) -> pd.Series:
    """Return which cells hold one of the words."""

    def holds(cell: Any) -> bool:
        return not isinstance(cell, NESTED_TYPES) and is_missing_word(as_text(cell) or "", words)

    try:
        # Each different cell once.
        found = {cell: holds(cell) for cell in column.unique()}
    except TypeError:  # lists cannot be hashed
        return column.map(holds)
    return column.isin([cell for cell, is_lost in found.items() if is_lost])

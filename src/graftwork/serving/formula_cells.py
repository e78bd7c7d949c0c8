"""Texts that a spreadsheet would take for formulas. A cell such as ``=HYPERLINK(...)`` in somebody's data becomes the name of a row or
of a class, and would be computed where the predictions are opened. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["escape_formulas", "escaped_cell"]

# Spreadsheets begin formulas with these, some with the wide forms as well, and drop tabs and line ends before them.
_STARTS = re.compile("[=+\\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")


def escaped_cell(cell: Any) -> Any:
    """Return a cell, a text that begins like a formula with an apostrophe in front; numbers, also those written as text, stay.

    Example:
        >>> [escaped_cell(cell) for cell in ("=1+1", "+49", "-cmd", "a=b", -3.5)]
        ["'=1+1", '+49', "'-cmd", 'a=b', -3.5]
    """
    if not isinstance(cell, str) or not _STARTS.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def escape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of predictions in which no cell, name of a row or heading is a formula.

    Args:
        frame: What :meth:`graftwork.serving.predict.Predictor.predict` returns.
    """
    escaped = frame.copy()
    for name in frame.columns:
        if not _holds_numbers(frame[name]):
            escaped[name] = _each(frame[name])
    if not _holds_numbers(frame.index):
        escaped.index = frame.index.map(_map_of(frame.index.unique())).rename(frame.index.name)
    escaped.index.name = escaped_cell(frame.index.name)
    escaped.columns = [escaped_cell(name) for name in frame.columns]
    return escaped


def _holds_numbers(values: Any) -> bool:
    return values.dtype.kind in "biufcM"


def _each(values: Any) -> Any:
    # By distinct text: a class has few, and a million rows.
    found = _map_of(values.dropna().unique())
    return values.map(lambda cell: found.get(cell, cell)) if found else values


def _map_of(texts: Iterable[Any]) -> dict[Any, Any]:
    return {text: escaped_cell(text) for text in texts}

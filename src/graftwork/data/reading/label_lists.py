"""Cells of a target that hold several labels, joined by a sign: split when the user asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import TargetCells, TargetRequest

__all__ = ["SEPARATORS", "split_cells"]

SEPARATORS = (";", "|", ",", "_")
"""Signs that ``auto`` looks for, in this order."""
_LEAST = 0.1
"""Share of the rows that hold several labels: less often the sign is part of a name."""


def split_cells(table: Table, requests: Sequence[TargetRequest], separator: str | None) -> dict[str, tuple[TargetCells, str]]:
    """Return the targets whose cells are lists of labels: their cells as lists, and the sign between them.

    A target counts if its cells are words and a tenth of its rows holds the sign. ``"auto"`` takes the first of ``;``, ``|``,
    ``,`` and ``_`` by which there are fewer labels than different cells, and three rows a label.

    Args:
        table: The raw table.
        requests: All targets; those of several columns and of another kind than multilabel stay as they are.
        separator: The sign, ``"auto"``, or None to split nothing.

    Raises:
        DataError: If no target has such cells.
    """
    if not separator:
        return {}
    signs = SEPARATORS if separator == "auto" else (separator,)
    found: dict[str, tuple[TargetCells, str]] = {}
    for request in requests:
        if len(request.columns) > 1 or request.kind not in ("", "multilabel"):
            continue
        column = table[request.columns[0]]
        sign = _sign_of(column, signs, is_guess=separator == "auto")
        if sign:
            found[request.name] = (_as_lists(column, sign), sign)
    if not found:
        raise DataError(
            f"--split-labels {separator}: no target has a tenth of its cells with several labels joined by "
            f"{short_list(map(repr, signs))}. Give the sign between the labels, or leave --split-labels out."
        )
    return found


def _sign_of(column: Column, signs: Sequence[str], *, is_guess: bool) -> str:
    if column.is_nested or column.machine_kind != "O" or column.kind in ("numeric", "date", "binary"):
        return ""
    known = int(column.counts.sum())
    for sign in signs:
        parts = [_labels(level, sign) for level in column.levels]
        several = np.array([len(part) > 1 for part in parts], dtype=bool)
        if not several.any() or column.counts[several].sum() < _LEAST * known:
            continue
        labels = {label for part in parts for label in part}
        uses = sum(len(part) * count for part, count in zip(parts, column.counts.tolist(), strict=True))
        if not is_guess or (len(labels) < len(parts) and uses >= 3 * len(labels)):
            return sign
    return ""


def _labels(level: str, sign: str) -> list[str]:
    return [piece.strip() for piece in level.split(sign) if piece.strip()]


def _as_lists(column: Column, sign: str) -> TargetCells:
    pandas = require("pandas", extra="data", purpose="Reading tables")
    # Code -1 finds the None at the end.
    parts = [*(_labels(level, sign) for level in column.levels), None]
    return TargetCells.of_lists(pandas.Series([parts[code] for code in column.codes.tolist()], dtype=object))

"""Cells that may stand for missing ones, and how many are missing: -999 among numbers, ``?`` among words, empty cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.table import Table

__all__ = ["odd_cell_notes", "stand_in"]

Floats = NDArray[np.float64]

_CODES = frozenset(
    sign * value
    for sign in (1.0, -1.0)
    for value in (9.0, 99.0, 99.9, 999.0, 999.9, 9999.0, 9999.9, 99999.0, 999999.0, 9999999.0)
) | {-1.0, -99.99, -999.99}
_SMALL = frozenset([9.0, 99.0, -9.0, -1.0])
"""Codes that are often values: they need a wide gap."""
_WORDS = frozenset(
    ["?", "??", "-", "--", "---", "...", "n/a", "#n/a", "nan", "null", "(null)", "<na>", "missing", "not available"]
)
_WIDE = 20.0


def stand_in(values: Floats) -> tuple[float, int] | None:
    """Return a value that may stand for a missing cell, and its rows: the smallest or largest number, written with nines (or -1),
    repeated, and far from all others.

    Args:
        values: Numbers ``[N]``, NaN where missing.

    Example:
        >>> stand_in(np.array([3.0, -999.0, 4.5, -999.0, 2.0]))
        (-999.0, 2)
    """
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return None
    for code in (float(known.min()), float(known.max())):
        if code not in _CODES:
            continue
        rest = known[known != code]
        count = len(known) - len(rest)
        if count < 2 or not len(rest):
            continue
        low, high = float(rest.min()), float(rest.max())
        gap = low - code if code < low else code - high
        is_wide = gap > max(high - low, 0.0)
        is_below = code < 0 <= low and (code not in _SMALL or high - low >= _WIDE)
        is_spike = code not in _SMALL and count >= max(3, 0.01 * len(known)) and gap > 0.1 * (high - low)
        if (is_wide and (code != -1.0 or high - low >= _WIDE)) or is_below or is_spike:
            return code, count
    return None


def odd_cell_notes(table: Table, names: Sequence[str], targets: Sequence[str] = ()) -> list[str]:
    """Return a line each on numbers and on words that may stand for missing cells, and on missing cells.

    Args:
        table: The raw table.
        names: Feature columns.
        targets: Columns of the targets.
    """
    codes, words, gaps = [], [], []
    code = word = ""
    for name in dict.fromkeys([*names, *targets]):
        column = table[name]
        if column.kind == "numeric":
            found = stand_in(column.numbers().values)
            if found is not None:
                code = code or f"{found[0]:.15g}"
                codes.append(f"{name!r} ({found[0]:.15g} in {found[1]} rows)")
        elif column.kind == "categorical":
            level = _word_in(column)
            if level is not None:
                word = word or level[0]
                words.append(f"{name!r} ({level[0]!r} in {level[1]} rows)")
        lost = _missing(column) if name not in targets else 0
        if lost:
            gaps.append((lost, name))
    notes = []
    if codes:
        notes.append(
            f"{_columns(codes)} one far value many times: {short_list(codes, 3)}. If it stands for a missing cell, say "
            f"--missing {code}."
        )
    if words:
        notes.append(
            f"{_columns(words)} a word that may stand for a missing cell, as a level of its own: {short_list(words, 3)}. If it "
            f"does, say --missing {word!r}."
        )
    if gaps:
        ordered = [f"{name!r} {_percent(lost / len(table))}" for lost, name in sorted(gaps, key=lambda pair: -pair[0])]
        share = _percent(sum(lost for lost, _ in gaps) / max(1, len(table) * len(names)))
        notes.append(f"Missing cells: {share} of all, in {len(gaps)} of {len(names)} columns ({short_list(ordered, 3)}).")
    return notes


def _columns(found: Sequence[str]) -> str:
    return "A column holds" if len(found) == 1 else f"{len(found)} columns hold"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _word_in(column: Column) -> tuple[str, int] | None:
    """Return a level that may stand for a missing cell, and its rows."""
    for index, level in enumerate(column.levels):
        if level.lower() in _WORDS:
            return level, int(column.counts[index])
    return None


def _missing(column: Column) -> int:
    if column.kind == "numeric":
        return int((~np.isfinite(column.numbers().values)).sum())
    return int((~column.known).sum()) if column.kind in ("categorical", "date") else 0

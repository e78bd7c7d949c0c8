"""Cells that may stand for missing ones, and how many are missing: -999 among numbers, ``?`` among words, empty cells."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.notes import fold
from graftwork.data.reading.number_rule import NumberRule
from graftwork.data.reading.table import Table

__all__ = ["mixed_cell_notes", "odd_cell_notes", "stand_in"]

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
_FEWEST_NUMBERS, _FEW_WORDS = 10, 5
"""Different numbers from which on a column could be one of numbers, and most words of which each may stand for a missing cell."""
_DASHES = repr("--")[:-1]


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
    codes: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    gaps = []
    for name in dict.fromkeys([*names, *targets]):
        column = table[name]
        if column.kind == "numeric":
            found = stand_in(column.numbers().values)
            if found is not None:
                codes[f"{name!r} ({found[0]:.15g} in {found[1]} rows)"] = [f"{found[0]:.15g}"]
        elif column.kind == "categorical":
            levels = _words_in(column)
            if levels:
                listed = ", ".join([f"{word!r} in {rows} {'row' if rows == 1 else 'rows'}" for word, rows in levels])
                words[f"{name!r} ({listed})"] = [repr(word) for word, _ in levels]
        lost = _missing(column) if name not in targets else 0
        if lost:
            gaps.append((lost, name))
    notes = []
    if codes:
        notes.append(
            f"{_columns(codes)} one far value many times: {short_list(list(codes), 3)}. If it stands for a missing cell, say "
            f"{_flags(codes)}."
        )
    if words:
        several = any(len(found) > 1 for found in words.values())
        what, does = ("words", "they do") if several else ("a word", "it does")
        level = "levels of their own" if several else "a level of its own"
        notes.append(
            f"{_columns(words)} {what} that may stand for a missing cell, as {level}: {short_list(list(words), 3)}. If {does}, say "
            f"{_flags(words)}."
        )
    if gaps:
        ordered = [f"{name!r} {_percent(lost / len(table))}" for lost, name in sorted(gaps, key=lambda pair: -pair[0])]
        share = _percent(sum(lost for lost, _ in gaps) / max(1, len(table) * len(names)))
        notes.append(f"Missing cells: {share} of all, in {len(gaps)} of {len(names)} columns ({short_list(ordered, 3)}).")
    return notes


def mixed_cell_notes(table: Table, names: Sequence[str]) -> list[str]:
    """Return a line each on columns of words most cells of which are numbers: a few words kept the column from being one of numbers.

    Args:
        table: The raw table.
        names: Columns that are, or could have been, features.
    """
    found = []
    for name in names:
        column = table[name]
        if column.kind != "categorical" or column.is_category or column.machine_kind != "O":
            continue
        # As when numbers were looked for: of many different cells nothing is read again.
        values, unread = column.read_levels(NumberRule())
        counts, others = column.counts, np.flatnonzero(unread)
        rows, lost = int(counts[np.isfinite(values)].sum()), int(counts[others].sum())
        if np.isfinite(values).sum() < _FEWEST_NUMBERS or not 0 < lost < rows:
            continue
        words = [column.levels[index] for index in others[np.argsort(-counts[others], kind="stable")].tolist()]
        is_clear = len(words) <= _FEW_WORDS and not any(letter.isdigit() for word in words for letter in word)
        advice = (
            f"If they stand for missing cells, say {_flags({name: [repr(word) for word in words]})}"
            if is_clear
            else "Write those cells as numbers, or leave them empty, to have the column read as numbers"
        )
        shown = short_list([repr(word) for word in words], 3)
        found.append(
            f"Column {name!r} is read as words, although {rows} of its {rows + lost} cells are numbers: {lost} "
            f"{'is' if lost == 1 else 'are'} not ({shown}). {advice}; --categories {shlex.quote(name)} says that it is right as it is."
        )
    return fold(found, "Columns of words whose cells are mostly numbers")


def _flags(found: Mapping[str, Sequence[str]]) -> str:
    """Return the flags for all that was found, each once."""
    items = dict.fromkeys(item for items in found.values() for item in items)
    # After a blank, two dashes would begin another flag.
    return " ".join(f"--missing{'=' if item.startswith(_DASHES) else ' '}{item}" for item in items)


def _columns(found: Collection[str]) -> str:
    return "A column holds" if len(found) == 1 else f"{len(found)} columns hold"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _words_in(column: Column) -> list[tuple[str, int]]:
    """Return the levels that may stand for missing cells, each with its rows."""
    return [(level, int(rows)) for level, rows in zip(column.levels, column.counts) if level.lower() in _WORDS]


def _missing(column: Column) -> int:
    if column.kind == "numeric":
        return int((~np.isfinite(column.numbers().values)).sum())
    return int((~column.known).sum()) if column.kind in ("categorical", "date") else 0

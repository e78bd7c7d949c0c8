"""What became of each column of a table: what it is read as, missing cells, what models get of it, or why they do not get it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.columns import CategoricalColumn, DateColumn, NumericColumn
from graftwork.data.encoders.history import HistoryColumn
from graftwork.data.encoders.table import Encoding, TableEncoder
from graftwork.data.encoders.words import WordsColumn
from graftwork.data.reading.column import Column
from graftwork.data.reading.nested import split_entry
from graftwork.data.reading.table import Table

__all__ = ["column_fates"]


def column_fates(
    table: Table,
    encoder: Encoder | None,
    *,
    targets: Collection[str],
    roles: Mapping[str, str],
    dropped: Mapping[str, str],
    group: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what became of the columns that are no targets, in the order of the table.

    Args:
        table: The table.
        encoder: The table encoder that reads its features; None if there are none.
        targets: Columns of targets.
        roles: What further columns serve as, ``{column: words}``.
        dropped: Why columns are not learned from, ``{column: words}``; entries of vectors under their own names.
        group: Column of the groups, which no model sees.

    Returns:
        ``{column: {"kind", "missing", "use", "why"}}``: how the cells are read, the number of missing ones, what models get (empty if
        nothing), and why not otherwise.
    """
    made = encoder.by_name() if isinstance(encoder, TableEncoder) else {}
    dropped = {**({group: "the group: its rows stay on one side of every split"} if group else {}), **dropped}
    entries: dict[str, list[str]] = {}
    for name in (*made, *dropped):
        entry = split_entry(name)
        if entry is not None and name not in table.columns:
            entries.setdefault(entry[0], []).append(name)
    found = {}
    for name in table.columns:
        if name in targets:
            continue
        column, encodings = table[name], made.get(name, [])
        kept = [part for part in entries.get(name, ()) if part in made]
        use = ", and ".join(map(_use, encodings)) or (f"{len(kept)} numbers, a column each" if kept else "")
        use = use or roles.get(name, "")
        why = "" if use else dropped.get(name) or _why_entries(entries.get(name, ()), dropped) or "not named as a feature"
        found[name] = {
            "kind": "vector" if column.num_entries else column.kind,
            "missing": _num_missing(column, encodings[0] if encodings else None),
            "use": use,
            "why": why,
        }
    return found


def _why_entries(entries: Collection[str], dropped: Mapping[str, str]) -> str:
    return "; ".join(dict.fromkeys(dropped[name] for name in entries if name in dropped))


def _num_missing(column: Column, encoding: Encoding | None) -> int:
    """Return the rows without a value; cells that cannot be read as what the column holds have none."""
    if isinstance(encoding, NumericColumn):
        return int((~np.isfinite(column.numbers(encoding.rule).values)).sum())
    if isinstance(encoding, DateColumn):
        return int(np.isnan(column.dates(encoding.rule).values).sum())
    return int((~column.known).sum())


def _use(encoding: Encoding) -> str:
    if isinstance(encoding, CategoricalColumn):
        return f"category of {len(encoding.levels):,} level{'s' if len(encoding.levels) != 1 else ''}"
    if isinstance(encoding, WordsColumn):
        count = len(encoding.words)
        return f"{count} frequent word{'s' if count != 1 else ''}, a flag each" if count else "nothing: no word is frequent"
    if isinstance(encoding, HistoryColumn):
        return f"history: the last {encoding.length} ids, levels of {encoding.item.name}"
    flag = ", and a flag where it is missing" if encoding.has_missing else ""
    if isinstance(encoding, DateColumn):
        parts = ", ".join("elapsed days" if part == "elapsed" else part for part, _, _ in encoding.parts)
        return f"{parts or 'nothing: it never changes'}{flag}"
    return f"number{', by quantiles (heavy tails)' if encoding.knots else ''}{flag}"

"""Columns that hold behaviour histories: which may be named as such, and what is told about their contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftwork.core.errors import DataError
from graftwork.data.encoders.history import HISTORY_FORM, HISTORY_LENGTH, history_codes
from graftwork.data.names import check_names, short_list
from graftwork.data.reading.column import level_name
from graftwork.data.reading.table import Table, as_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_histories", "history_notes"]


def check_histories(
    pairs: Sequence[tuple[str, str]],
    columns: Collection[str],
    roles: Mapping[str, str],
    *,
    categories: Collection[str],
    what: str,
    where: str,
) -> dict[str, str]:
    """Check which columns are named as histories, and of which item column.

    Args:
        pairs: ``(history, item)`` as the user named them.
        columns: Columns that exist.
        roles: What columns that are no features serve as, for example ``{"click": "a target"}``.
        categories: Columns that are named as categories; the item may be one of them.
        what: The option or key, for messages.
        where: Where the columns are, for messages.

    Returns:
        ``{history: item}``.

    Raises:
        DataError: If columns are unknown, serve as something else, or there are several items.
    """
    items = list(dict.fromkeys(item for _, item in pairs))
    names = list(dict.fromkeys(name for name, _ in pairs))
    for name in [*names, *items]:
        if name in roles:
            kind = "a history" if name in names else "the item that histories are read beside"
            raise DataError(f"{what}: column {name!r} is {roles[name]}, so it cannot be {kind}. Name a feature column.")
    check_names([*names, *items], columns, what=what, where=where)
    if len(items) > 1:
        raise DataError(
            f"{what}: histories belong to one item column, the item shown, which a model looks them up with; got "
            f"{short_list(map(repr, items))}. Name the same item for all of them."
        )
    for name in names:
        if name in items:
            raise DataError(f"{what}: column {name!r} is named both as a history and as the item. Name two columns.")
        if name in categories:
            raise DataError(f"{what}: column {name!r} is named both as a history and as a category. Name it once.")
    return dict(pairs)


def history_notes(frame: pd.DataFrame | Table, histories: Mapping[str, str]) -> list[str]:
    """Return what each history column holds.

    Args:
        frame: The raw table.
        histories: ``{history: item}``.

    Raises:
        DataError: If a cell is no history, or a column holds none in any row.
    """
    notes = []
    table = as_table(frame)
    for name, item in histories.items():
        codes, texts = history_codes(name, table[name])
        naming = table[item].naming
        # Named as the item column names its levels, or `7` and `7.0` would not meet.
        ids = [level_name(texts[number], naming) for number in np.unique(codes[codes >= 0])]
        if not ids:
            raise DataError(f"The history column {name!r} is empty in all rows. Give {HISTORY_FORM}; or name it as no history.")
        shown = set(table[item].named(naming)[1])
        share = sum(text in shown for text in ids) / len(ids)
        notes.append(
            f"Column {name!r} is a history of {item!r}: {int((codes[:, 0] >= 0).sum())} of {len(table)} rows have one, the "
            f"last {HISTORY_LENGTH} ids of a row count, and {share:.0%} of the {len(ids)} different ids occur in {item!r}."
            + ("" if share else " Check that both columns name items in the same way.")
        )
    return notes

"""Free text in a table whose user named no text: it is learned from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graftwork.data.names import short_list
from graftwork.data.options import DataOptions
from graftwork.data.reading.phrases import holds_sentences
from graftwork.data.reading.table import Table

__all__ = ["free_text_notes", "free_texts"]


def free_texts(table: Table, options: DataOptions, taken: Collection[str]) -> tuple[str, ...]:
    """Return the columns that hold free text, in the order of the table.

    Args:
        table: The table.
        options: Ignored columns, the group and the time are none.
        taken: Nor are these: targets and whatever else serves something.
    """
    others = {*taken, *(options.ignore or ()), options.group, options.time}
    return tuple(name for name in table.columns if name not in others and holds_sentences(table[name]))


def free_text_notes(found: Sequence[str]) -> list[str]:
    """Return the note on columns that are learned from as text though nobody said so."""
    if not found:
        return []
    what = f"Column {found[0]!r} holds" if len(found) == 1 else f"Columns {short_list(map(repr, found))} hold"
    return [f"{what} free text and {'is' if len(found) == 1 else 'are'} learned from as text. Leave a column out with --ignore."]

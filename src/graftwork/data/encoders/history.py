"""Behaviour histories: cells that hold the ids of what somebody clicked or bought before, as positions of one item column's
codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.encoders.columns import CategoricalColumn
from graftwork.data.reading.cells import as_text, text_codes
from graftwork.data.reading.column import Column, as_column, level_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HISTORY_FORM", "HISTORY_LENGTH", "HistoryColumn", "fit_items", "history_codes", "history_ids"]

HISTORY_LENGTH = 20
"""Positions of a history: so many of the last ids of a cell are kept."""
HISTORY_FORM = "ids separated by spaces, commas, semicolons or '|', or a list of texts and numbers, the most recent last"
"""What a cell of a history holds, for messages."""
_SEPARATORS = re.compile(r"[\s,;|]+")


def history_ids(cell: Any) -> tuple[str, ...]:
    """Return the ids in a cell, in its order, named by :func:`~graftwork.data.reading.cells.as_text`; missing ones are left out.

    Texts of lists are read as well (``"[17, 23]"``, ``"['a', 'b']"``): that is how lists end up in CSV files.

    Raises:
        TypeError: If the cell is neither a text, a number nor a list of them.
    """
    items = _items(cell)
    if _is_nested(items):
        raise TypeError("the items of a history are texts or numbers")
    return tuple(text for text in map(as_text, items) if text is not None)


def _items(cell: Any) -> Sequence[Any]:
    if isinstance(cell, str):
        text, quotes = cell.strip(), ""
        if text.startswith("[") and text.endswith("]"):
            # A list that Python printed has quotes around its texts.
            text, quotes = text[1:-1], "'\""
        return [item.strip(quotes) for item in _SEPARATORS.split(text)]
    return cell.tolist() if isinstance(cell, np.ndarray) else cell if isinstance(cell, (list, tuple)) else [cell]


def _is_nested(items: Iterable[Any]) -> bool:
    return any(hasattr(kind, "__len__") and not issubclass(kind, str) for kind in set(map(type, items)))


def history_codes(name: str, values: pd.Series | Column, length: int = HISTORY_LENGTH) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column's histories as numbers of ids, and the ids.

    Args:
        name: The column, for messages.
        values: Its cells.
        length: Positions ``L``, at least 1.

    Returns:
        Numbers ``[N, L]``, the newest id first, -1 behind the last; and the ids that they number, older ones than the last ``L``
        too.

    Raises:
        DataError: If a cell holds something else.
    """
    pandas = require("pandas", extra="data", purpose="Reading tables")
    cells = as_column(values, name).cells.to_numpy(dtype=object)
    try:
        rows, cells = pandas.factorize(cells)  # each different text is parsed once
    except TypeError:  # lists cannot be hashed
        rows = np.arange(len(cells))
    items = list(map(_items, cells))
    flat = list(chain.from_iterable(items))
    if _is_nested(flat):
        wrong = next(cell for cell, part in zip(cells, items, strict=True) if _is_nested(part))
        raise DataError(f"The history column {name!r} holds {wrong!r:.80}. Give {HISTORY_FORM}; or leave the cell empty.")
    # All ids of all cells at once: one look-up for each id and none for each row.
    codes, ids = text_codes(pandas.Series(flat, dtype=object))
    known = codes >= 0
    sizes = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    codes, owner = codes[known], np.repeat(np.arange(len(cells)), sizes)[known]
    # Where the ids of each cell end in the flat list, missing ones left out.
    ends = np.cumsum(np.bincount(owner, minlength=len(cells)))
    place = ends[owner] - 1 - np.arange(len(owner))  # counted from the newest id of its cell
    kept = place < length
    table = np.full((len(cells) + 1, length), -1, dtype=np.int64)  # the last row serves missing cells, row -1
    table[owner[kept], place[kept]] = codes[kept]
    return table[rows], ids


def fit_items(item: pd.Series | Column, histories: Mapping[str, pd.Series | Column]) -> CategoricalColumn:
    """Fit the levels of an item column that histories share; an id that only histories hold is a level as well.

    A level counts in every training row that holds it, once, shown or in any history.

    Args:
        item: The item column in the training rows, with its name.
        histories: The history columns in these rows.

    Raises:
        DataError: If a cell is no history.
    """
    column = as_column(item)
    parts = [(column.codes[:, None], column.levels), *(history_codes(name, values) for name, values in histories.items())]
    numbers: dict[str, int] = {}
    shared = [
        # Texts of several columns get common numbers; -1 finds the entry at the end.
        np.array([*(numbers.setdefault(level_name(text, column.naming), len(numbers)) for text in texts), -1])[codes]
        for codes, texts in parts
    ]
    # Sorted, so that an id that a row holds twice stands beside itself.
    found = np.sort(np.concatenate(shared, axis=1), axis=1)
    counted = found >= 0
    num_rows = int(counted.any(axis=1).sum())
    counted[:, 1:] &= found[:, 1:] != found[:, :-1]  # once per row
    counts = np.bincount(found[counted], minlength=len(numbers)).tolist()
    return CategoricalColumn.of_counts(column.name, dict(zip(numbers, counts, strict=True)), num_rows, naming=column.naming)


@dataclass(frozen=True, slots=True)
class HistoryColumn:
    """The last ids of each cell as codes of an item column, newest first; positions behind the last, rare and unseen ids are
    0."""

    name: str
    item: CategoricalColumn
    """The column whose levels it shares."""
    length: int = HISTORY_LENGTH

    def encode(self, values: pd.Series | Column) -> NDArray[np.int64]:
        """Return codes ``[N, length]``.

        Raises:
            DataError: If a cell is no history.
        """
        codes, ids = history_codes(self.name, values, self.length)
        return self.item.codes_of(ids)[codes]

    def state(self) -> dict[str, Any]:
        """Return JSON values; the levels are in the item column's."""
        return {"type": "history", "name": self.name, "item": self.item.name, "length": self.length}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], item: CategoricalColumn) -> Self:
        """Restore from :meth:`state` and the item column."""
        return cls(state["name"], item, state["length"])

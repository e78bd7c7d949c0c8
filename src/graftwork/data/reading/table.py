"""A table as named columns, read lazily: a DataFrame's columns, and what is nested in them (``place.lat``, ``vector[3]``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.data.reading.column import Column
from graftwork.data.reading.large_tables import LargeColumns
from graftwork.data.reading.nested import split_entry

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "as_table"]


class Table:
    """``N`` rows of named columns. Columns are made on first use and kept, so that each is read once.

    Args:
        columns: Columns that exist already.
        frame: Where further columns come from.
        categories: Columns whose cells are names.
        large: Makes the columns of a large table; None for others.
    """

    def __init__(
        self,
        columns: dict[str, Column],
        frame: Any,
        num_rows: int,
        categories: Collection[str] = (),
        large: LargeColumns | None = None,
    ) -> None:
        self._made = dict(columns)
        self._frame = frame
        self._num_rows = num_rows
        self._categories = frozenset(categories)
        self._large = large

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._made) if self._frame is None else [str(name) for name in self._frame.columns]

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        if name in self._made or (self._frame is not None and name in self._frame.columns):
            return True
        entry = split_entry(name) if isinstance(name, str) else None
        return entry is not None and entry[0] in self and entry[1] < self[entry[0]].num_entries

    def __getitem__(self, name: str) -> Column:
        if name not in self._made:
            if self._frame is None or name not in self._frame.columns:
                self._made[name] = self._entry(name)
                return self._made[name]
            decimal = str(self._frame.attrs.get("decimal", "."))
            self._made[name] = self._column(
                name, partial(self._frame.__getitem__, name), decimal=decimal, is_category=name in self._categories
            )
        return self._made[name]

    def _column(self, name: str, load: Callable[[], pd.Series], **settings: Any) -> Column:
        return Column(name, load(), **settings) if self._large is None else self._large.column(name, load, **settings)

    def _entry(self, name: str) -> Column:
        """Return one entry of the vectors in a column.

        Raises:
            KeyError: If there is no such column.
        """
        entry = split_entry(name)
        # `a[0]` is also a name that a column may have; those were found before.
        vectors = self[entry[0]].vectors if entry is not None and entry[0] in self else None
        if entry is None or vectors is None:
            raise KeyError(name)
        pandas = require("pandas", extra="data", purpose="Reading tables")
        index = entry[1]

        def load() -> pd.Series:
            found = self[entry[0]].vectors
            assert found is not None
            cells: pd.Series = pandas.Series(found[:, index], index=pandas.RangeIndex(len(found)))
            return cells

        return self._column(name, load)

    def with_empty(self, names: Sequence[str]) -> Self:
        """Return the table with further columns, of missing cells alone; what has been read is not read again."""
        pandas = require("pandas", extra="data", purpose="Reading tables")
        cells = pandas.Series([None] * len(self), dtype=object)
        return type(self)(
            {**self._made, **{name: Column(name, cells) for name in names}}, self._frame, len(self), self._categories, self._large
        )

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> Self:
        """Return some rows of some columns; what has been read is not read again."""
        # No frame: the parts hold all that may be asked for.
        return type(self)({name: self[name].take(rows) for name in names}, None, len(rows))


def as_table(source: Any, categories: Collection[str] = (), large: LargeColumns | None = None) -> Table:
    """Return ``source`` if it is a table already, else a DataFrame (or what has columns like one) as one."""
    return source if isinstance(source, Table) else Table({}, source, len(source), categories, large)

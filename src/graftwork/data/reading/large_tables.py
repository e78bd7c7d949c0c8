"""Tables of many rows: what is read of a column is kept in files, so that memory holds a few columns at a time and not the table.

The readings are those of :class:`~graftwork.data.reading.column.Column`, made once from the whole column; what comes out does not depend
on where it was kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.scratch import scratch_folder
from graftwork.data.reading.column import Codes, Column, Floats, Naming, Parsed
from graftwork.data.reading.date_rule import DateRule
from graftwork.data.reading.number_rule import NumberRule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LARGE_ROWS", "KeptArrays", "LargeColumn", "LargeColumns", "is_large", "large_columns"]

LARGE_ROWS = 200_000
"""Rows from which on a table is read column by column."""
_MOST_LEVELS = 50_000
"""Different cells of a column up to which their texts stay in memory."""
_FEW_TEXTS = 64

Array = NDArray[Any]
Found = TypeVar("Found")


def is_large(num_rows: int) -> bool:
    """Return whether a table of so many rows is read column by column."""
    return num_rows >= LARGE_ROWS


@contextlib.contextmanager
def large_columns(num_rows: int) -> Iterator[LargeColumns | None]:
    """Yield where columns of a large table keep what was read, until the end of the block; None for other tables."""
    if not is_large(num_rows):
        yield None
        return
    with scratch_folder("columns") as folder:
        columns = LargeColumns(KeptArrays(folder))
        try:
            yield columns
        finally:
            columns.forget()


class KeptArrays:
    """Arrays in files of a folder. Each is mapped when it is asked for, and unmapped with its last reference.

    Args:
        folder: An empty folder that outlives all arrays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0

    def keep(self, array: Array) -> Callable[[], Array]:
        """Write an array; the function that is returned gives it back, read-only. On a full disk it stays in memory."""
        if not array.size:
            return lambda: array
        path = self._folder / f"{self._number}.npy"
        self._number += 1
        try:
            np.save(path, array, allow_pickle=False)
        except OSError:
            path.unlink(missing_ok=True)
            return lambda: array
        return partial(_mapped, path)


def _mapped(path: Path) -> Array:
    # A plain array: those that are computed from it are no mapped ones.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


class LargeColumns:
    """Makes the columns of one table. The cells of one column are in memory at a time.

    Args:
        kept: Where readings are kept.
    """

    def __init__(self, kept: KeptArrays) -> None:
        self.kept = kept
        self._live: tuple[LargeColumn, Column] | None = None

    def column(self, name: str, load: Callable[[], pd.Series], *, decimal: str = ".", is_category: bool = False) -> LargeColumn:
        """Return a column.

        Args:
            name: Its name.
            load: Reads the cells; called again when they are asked for after another column was read.
            decimal: As :class:`Column` takes it.
            is_category: Likewise.
        """
        return LargeColumn(name, load, self, decimal=decimal, is_category=is_category)

    def forget(self) -> None:
        """Let the cells go that are in memory."""
        self._live = None

    def whole(self, column: LargeColumn) -> Column:
        """Return a column with its cells in memory, in place of the one before."""
        if self._live is None or self._live[0] is not column:
            # Before the next one is read: two of them need not fit.
            self._live = None
            self._live = (column, column.read())
        return self._live[1]


class LargeColumn(Column):
    """A column whose cells are read again when they are asked for, and whose readings are kept in files.

    Args:
        name: Its name.
        load: Reads the cells.
        room: The columns of its table.
        decimal: As :class:`Column` takes it.
        is_category: Likewise.
    """

    def __init__(
        self, name: str, load: Callable[[], pd.Series], room: LargeColumns, *, decimal: str = ".", is_category: bool = False
    ) -> None:
        self._load, self._room = load, room
        self._begin(name, decimal, is_category)
        self._facts: dict[Any, Any] = {}
        whole = room.whole(self)
        self.is_category = whole.is_category
        self._num_rows, self._machine_kind = len(whole), whole.machine_kind
        # What every check and encoder asks for, while the cells are there.
        self._kind, self._nested, self._notes = whole.kind, whole.is_nested, whole.notes()
        if self._kind == "numeric":
            self.numbers()
        elif self._kind == "date":
            self.dates()
        if self._machine_kind == "O":
            self._array("codes", lambda one: one.codes)
        else:
            self._array("known", lambda one: one.known)
        if self._kind not in ("numeric", "list"):
            self.naming  # noqa: B018 - asked while the cells are there
            if self.num_levels <= _MOST_LEVELS:
                self.levels  # noqa: B018 - likewise
        # Of words the rules were guessed to find that they are no numbers and dates.
        self._facts |= {key: rule for key, rule in whole._guessed.items() if key in ("numbers", "dates")}

    def read(self) -> Column:
        """Return the column with its cells in memory."""
        return Column(self.name, self._load(), decimal=self.decimal, is_category=self.is_category)

    def __len__(self) -> int:
        return self._num_rows

    def _once(self, key: Any, ask: Callable[[Column], Found]) -> Found:
        """Return what the column with its cells says, asked once."""
        if key not in self._facts:
            self._facts[key] = ask(self._room.whole(self))
        found: Found = self._facts[key]
        return found

    def _array(self, key: Any, ask: Callable[[Column], Array]) -> Array:
        return self._once(key, lambda whole: self._room.kept.keep(ask(whole)))()

    @property
    def cells(self) -> pd.Series:
        """The cells as they stand, read again if another column was asked for meanwhile."""
        return self._room.whole(self).cells

    @property
    def machine_kind(self) -> str:
        """NumPy's letter for the cells."""
        return self._machine_kind

    @property
    def codes(self) -> Codes:
        """Level of each row, int64 ``[N]``, -1 where the cell is missing."""
        return self._array("codes", lambda whole: whole.codes)

    @property
    def num_levels(self) -> int:
        """Number of different cells."""
        return self._once("levels", lambda whole: whole.num_levels)

    @property
    def levels(self) -> list[str]:
        """The different cells as texts; many of them are read again."""
        if self.num_levels > _MOST_LEVELS:
            return self._room.whole(self).levels
        return self._once("texts", lambda whole: whole.levels)

    def texts_of(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Return the cells of some rows as texts, None where they are missing."""
        if self.num_levels <= _MOST_LEVELS:
            levels = [*self.levels, None]
            return [levels[code] or None for code in self.codes[rows].tolist()]
        if len(rows) > _FEW_TEXTS:
            return self._room.whole(self).texts_of(rows)
        # The first rows of a target are compared with those of every other column.
        return list(self._once(("texts", rows.tobytes()), lambda whole: whole.texts_of(rows)))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows are not empty, bool ``[N]``."""
        if self._machine_kind == "O":
            return np.asarray(self.codes >= 0)
        return self._array("known", lambda whole: whole.known)

    @property
    def number_rule(self) -> NumberRule | None:
        """How its cells are read as numbers, or None if they are no numbers."""
        return self._once("numbers", lambda whole: whole.number_rule)

    @property
    def date_rule(self) -> DateRule | None:
        """How its cells are read as dates, or None if they are no dates."""
        return self._once("dates", lambda whole: whole.date_rule)

    @property
    def vectors(self) -> Floats | None:
        """The cells as vectors ``[N, L]``; None if they are none."""
        if not self.is_nested or self._once("entries", lambda whole: whole.num_entries) == 0:
            return None
        return self._array("vectors", lambda whole: np.asarray(whole.vectors))

    @property
    def naming(self) -> Naming:
        """How the levels are named."""
        return self._once("naming", lambda whole: whole.naming)

    def _read(self, rule: NumberRule | DateRule, direct: Any) -> Parsed:
        found = self._once(rule, lambda whole: _kept(self._room.kept, _read_by(whole, rule)))
        return found()

    def notes(self) -> list[str]:
        """Return what there is to say about how a column of numbers or dates is read."""
        return list(self._notes)


def _read_by(column: Column, rule: NumberRule | DateRule) -> Parsed:
    return column.numbers(rule) if isinstance(rule, NumberRule) else column.dates(rule)


def _kept(kept: KeptArrays, parsed: Parsed) -> Callable[[], Parsed]:
    values = kept.keep(parsed.values)
    return lambda: Parsed(values(), parsed.blanks, parsed.unread)

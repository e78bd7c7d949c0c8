"""What a task kind is given to become a target: the user's request, and the cells of its columns read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.column import Column, Parsed, level_name
from graftwork.data.reading.number_rule import NumberRule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["InferredTask", "TargetCells", "TargetRequest"]

_MAX_CLASSES = 20
"""So many numbers may be names of classes; with more, how they are written does not matter."""
_MOST_FLAGS = 2**4 + 2**5
"""Ways of writing true and false."""
_MANY_NUMBERS = 1000
"""Different numbers from which on they are named for those who ask."""


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """One target that the user asked for."""

    name: str
    columns: tuple[str, ...]
    kind: str = ""
    """Name of a task kind; empty lets the values decide."""
    classes: tuple[str, ...] = ()
    """Class order given by the user."""
    metric: str = ""


@dataclass(frozen=True, slots=True)
class InferredTask:
    """A task, its target array, and why it was read this way."""

    spec: TaskSpec
    reason: str
    target: NDArray[Any]
    """Laid out as :class:`~graftwork.core.records.TaskSpec` says."""
    notes: tuple[str, ...] = ()
    """How the cells were read, where that is not obvious."""


@dataclass(frozen=True, slots=True)
class TargetCells:
    """One target column, read once."""

    values: pd.Series
    codes: NDArray[np.int64]
    """Level of each row, ``[N]``, -1 where the cell is missing."""
    levels: Sequence[str]
    """Names of the classes that cells can be: different numbers by their value, however written, and words as they stand."""
    order: Sequence[str] | None
    """Order of a categorical column; None for other columns."""
    numbers: NDArray[np.float64]
    """The cells as numbers, ``[N]``, NaN where missing or no number; empty if the column is categorical or true and false."""
    words: Sequence[str]
    """Examples of cells that are no numbers; empty if all are."""
    notes: tuple[str, ...] = ()
    """How numbers are written, and which classes are one number or word written differently."""

    @classmethod
    def of(cls, column: Column) -> TargetCells:
        """Read a column whose cells are no lists."""
        order, rule = _category_order(column), column.number_rule
        # Python's and pandas' words for it; numbers 1 and 0 are no such column.
        is_plain = column.machine_kind in "iuf"
        if order is None and not is_plain and column.num_levels <= _MOST_FLAGS and _are_flags(column.levels):
            return cls(column.cells, *_flag_levels(column), None, np.zeros(0), ["x"])
        # Among words, numbers are names; they are read plainly to say how many there are.
        if order is not None or rule is None or rule.tolerant:
            parsed = column.numbers(NumberRule()) if order is None else Parsed(np.zeros(0), {}, {})
            words = [repr(word) for word in [*parsed.unread, *parsed.blanks]][:5] or ["x"]
            return cls(column.cells, column.codes, column.levels, order, parsed.values, words)
        parsed = column.numbers(rule)
        codes, levels = _number_levels(column, rule, parsed)
        return cls(column.cells, codes, levels, None, parsed.values, (), tuple(_number_notes(column, codes, levels)))

    @classmethod
    def of_lists(cls, values: pd.Series) -> TargetCells:
        """Take a column of lists; only ``values`` can be asked then."""
        return cls(values, np.full(len(values), -1, dtype=np.int64), (), None, np.zeros(0), ("a list",))

    def respelled(self, names: Mapping[str, str]) -> TargetCells:
        """Return the cells with other names of their levels, equal names being one level, and a note on those.

        Args:
            names: Name of every level.
        """
        levels: dict[str, int] = {}
        numbers = np.array([*(levels.setdefault(names[level], len(levels)) for level in self.levels), -1], dtype=np.int64)
        merged = {name: [level for level in self.levels if names[level] == name] for name in levels}
        notes = tuple(
            f"The cells {short_list(map(repr, texts), 5)} are one word, so they are one class, {name!r}."
            for name, texts in merged.items()
            if len(texts) > 1
        )
        return replace(self, codes=numbers[self.codes], levels=list(levels), notes=(*self.notes, *notes))

    @property
    def distinct(self) -> list[str]:
        """The different cells, sorted as text."""
        return sorted(self.levels)

    @property
    def num_known(self) -> int:
        """Rows whose cell is not missing."""
        return int((self.codes >= 0).sum())

    @property
    def counts(self) -> list[int]:
        """Rows of each level."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels)).tolist()

    @property
    def are_numbers(self) -> bool:
        """Whether every known cell is a number."""
        return not self.words and bool(len(self.numbers))


def _category_order(column: Column) -> list[str] | None:
    """Return the levels of a categorical column that occur, in its order; None for other columns."""
    values = column.cells
    if str(values.dtype) != "category":
        return None
    present = {as_text(value) for value in values.unique().tolist()}
    return [text for text in map(as_text, values.cat.categories.tolist()) if text is not None and text in present]


def _are_flags(levels: Sequence[str]) -> bool:
    return {level.lower() for level in levels} <= {"true", "false"}


def _flag_levels(column: Column) -> tuple[NDArray[np.int64], list[str]]:
    """Return true and false, in any case, as ``True`` and ``False``."""
    names: dict[str, int] = {}
    numbers = np.array([*(names.setdefault(level.capitalize(), len(names)) for level in column.levels), -1], dtype=np.int64)
    return numbers[column.codes], list(names)


def _number_levels(column: Column, rule: NumberRule, parsed: Parsed) -> tuple[NDArray[np.int64], Sequence[str]]:
    """Return the levels of a column of numbers, each value one level however it is written; words for a missing cell are none."""
    if column.machine_kind in "iuf":
        # Different numbers have different names, which are written for those who ask.
        return column.codes, _Names(column.num_levels, lambda: [level_name(text, "numbers") for text in column.levels])
    known = column.codes >= 0
    values = np.full(column.num_levels, np.nan)
    values[column.codes[known]] = parsed.values[known]
    is_number = ~np.isnan(values)
    count = int(is_number.sum())
    # Different numbers have different names, and equal names are of equal numbers.
    if count > _MANY_NUMBERS and len(np.unique(values[is_number])) == count:
        places = np.append(np.where(is_number, np.cumsum(is_number) - 1, -1), -1)
        return places[column.codes], _Names(count, lambda: _number_names(column, rule, values)[1])
    numbers, levels = _number_names(column, rule, values)
    return numbers[column.codes], levels


def _number_names(column: Column, rule: NumberRule, values: NDArray[np.float64]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the name of each level, -1 for those that are no number, and one more for missing cells; and the names."""
    names: dict[str, int] = {}
    numbers = np.full(len(values) + 1, -1, dtype=np.int64)
    for place, (text, value) in enumerate(zip(column.levels, values.tolist(), strict=True)):
        # Plain numbers by their digits: 0.1 must not be named after its binary neighbour.
        name = level_name(text, "numbers") if rule.is_plain else as_text(value)
        if name is not None and not np.isnan(value):
            numbers[place] = names.setdefault(name, len(names))
    return numbers, list(names)


class _Names(Sequence[str]):
    """Names of the different numbers of a column, made on first use: of a million measurements nobody asks."""

    def __init__(self, number: int, make: Callable[[], list[str]]) -> None:
        self._number, self._make = number, make
        self._names: list[str] | None = None

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if self._names is None:
            self._names = self._make()
        return self._names[place]


def _number_notes(column: Column, codes: NDArray[np.int64], levels: Sequence[str]) -> list[str]:
    if column.machine_kind != "O":
        return []
    notes = column.notes()
    if len(levels) > _MAX_CLASSES:
        return notes
    written: dict[int, dict[str, None]] = {}
    # dict: each pair of level and number once, not once a row.
    for place, number in dict(zip(column.codes.tolist(), codes.tolist(), strict=True)).items():
        if number >= 0:
            written.setdefault(number, {})[column.levels[place]] = None
    return notes + [
        f"In column {column.name!r} the cells {short_list(map(repr, texts), 5)} are one number, so they are one class, "
        f"{levels[number]!r}."
        for number, texts in written.items()
        if len(texts) > 1
    ]

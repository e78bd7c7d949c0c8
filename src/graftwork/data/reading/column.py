"""One column of a table: its cells as they stand, and what they are read as, each reading made once and on first use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.cells import (
    NESTED_TYPES,
    as_text,
    machine_dates,
    machine_numbers,
    number_codes,
    plain_cells,
    text_codes,
)
from graftwork.data.reading.date_rule import DateRule, date_notes, guess_date_rule
from graftwork.data.reading.missing_words import blank_words
from graftwork.data.reading.nested import vectors_of
from graftwork.data.reading.number_rule import NumberRule, guess_number_rule, number_notes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "ColumnKind", "Naming", "Parsed", "as_column", "level_name"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
ColumnKind = Literal["numeric", "categorical", "date", "text", "list", "binary"]
Naming = Literal["words", "numbers"]
"""How levels are named: by their text as it stands, or, where all are numbers, by their value (``3``, ``3.0`` and ``03`` are one
level)."""

_NUMBER = re.compile(r"([+-]?)0*(\d+)(?:\.(\d*?)0*)?")
_ZERO_LED = re.compile(r"[+-]?0\d")


def level_name(text: str, naming: Naming) -> str:
    """Return the name of a level.

    Example:
        >>> level_name("007.50", "numbers"), level_name("007.50", "words")
        ('7.5', '007.50')
    """
    if naming == "words":
        return text
    found = _NUMBER.fullmatch(text)
    if found is not None:
        # -0 and 0 are one number.
        sign = "-" if found[1] == "-" and (found[2] != "0" or found[3]) else ""
        return f"{sign}{found[2]}.{found[3]}" if found[3] else f"{sign}{found[2]}"
    try:
        # What the pattern does not cover, such as 1e3.
        return as_text(float(text)) or text
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Parsed:
    """The cells of a column as numbers or dates."""

    values: Floats
    """``[N]``, NaN where the cell is missing or cannot be read."""
    blanks: Mapping[str, int]
    """Words that stand for a missing cell, with the rows of each."""
    unread: Mapping[str, int]
    """Cells that cannot be read, with the rows of each."""


class Column:
    """A column, read lazily.

    Args:
        name: Its name.
        cells: Its cells, of any dtype; texts are not yet read.
        decimal: The decimal sign that is likelier where two readings are possible.
        is_category: Whether the user said that its cells are names.
    """

    def __init__(self, name: str, cells: pd.Series, *, decimal: str = ".", is_category: bool = False) -> None:
        self._cells = plain_cells(cells)
        self._begin(name, decimal, is_category or type(self._cells.dtype).__name__ == "CategoricalDtype")

    def _begin(self, name: str, decimal: str, is_category: bool) -> None:
        self.name, self.decimal, self.is_category = name, decimal, is_category
        self._codes: Codes | None = None
        self._levels: list[str] | None = None
        self._distinct: Sequence[Any] = ()
        self._kind: ColumnKind | None = None
        self._naming: Naming | None = None
        self._guessed: dict[str, Any] = {}
        self._parsed: dict[NumberRule | DateRule, Parsed] = {}
        # Keyed by rule: guessing and reading ask for the same readings.
        self._level_reads: dict[NumberRule | DateRule, tuple[Floats, NDArray[np.bool_]]] = {}
        self._nested: bool | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def cells(self) -> pd.Series:
        """The cells as they stand, ``[N]``, of a dtype that the readers know."""
        return self._cells

    @property
    def machine_kind(self) -> str:
        """NumPy's letter for the cells: ``b``, ``i``, ``u``, ``f`` for numbers, ``M`` and ``m`` for dates and durations, ``O``
        for the rest."""
        if type(self.cells.dtype).__name__ == "CategoricalDtype":
            return "O"
        return "M" if type(self.cells.dtype).__name__ == "DatetimeTZDtype" else str(self.cells.dtype.kind)

    @property
    def codes(self) -> Codes:
        """Level of each row, int64 ``[N]``, -1 where the cell is missing."""
        if self._codes is None:
            found = number_codes(self.cells) if self.machine_kind in "iuf" else None
            if found is None:
                self._codes, self._levels = text_codes(self.cells)
                self._distinct = self._levels
            else:
                self._codes, self._distinct = found
        return self._codes

    @property
    def levels(self) -> list[str]:
        """The different cells as texts, in order of appearance (those of :attr:`codes`)."""
        self.codes  # noqa: B018 - reads the cells
        if self._levels is None:
            # Of a million measurements each is a level: they are named only for those who ask.
            self._levels = [as_text(cell) or "" for cell in self._distinct]
        return self._levels

    @property
    def num_levels(self) -> int:
        """Number of different cells; those of machine numbers are counted without naming them."""
        self.codes  # noqa: B018 - reads the cells
        return len(self._distinct)

    def texts_of(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Return the cells of some rows as texts, None where they are missing."""
        return [None if code < 0 else as_text(self._distinct[code]) for code in self.codes[rows].tolist()]

    @property
    def counts(self) -> Codes:
        """Rows of each level."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.num_levels)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows are not empty, bool ``[N]``; words for a missing cell are not empty."""
        # Of machine numbers the texts need not be made just to see what is missing.
        return np.asarray(self.codes >= 0) if self.machine_kind == "O" else np.asarray(self.cells.notna().to_numpy())

    @property
    def is_nested(self) -> bool:
        """Whether cells hold lists or mappings."""
        if self._nested is None:
            # The types of all cells, since a list may come late; a set of types is quick.
            kinds = set(map(type, self.cells.tolist())) if self.cells.dtype == object else set()
            self._nested = any(issubclass(kind, NESTED_TYPES) for kind in kinds)
        return self._nested

    @property
    def vectors(self) -> Floats | None:
        """The cells as vectors ``[N, L]``, NaN rows where missing; None if they are no lists of equally many numbers."""
        if "vectors" not in self._guessed:
            self._guessed["vectors"] = vectors_of(self.cells.tolist()) if self.is_nested else None
        found: Floats | None = self._guessed["vectors"]
        return found

    @property
    def num_entries(self) -> int:
        """Entries of each vector, 0 if the cells are none."""
        return 0 if self.vectors is None else self.vectors.shape[1]

    @property
    def kind(self) -> ColumnKind:
        """How the column is read as a feature: decided from all of its cells, at training."""
        if self._kind is None:
            self._kind = self._decide()
        return self._kind

    @property
    def number_rule(self) -> NumberRule | None:
        """How its cells are read as numbers, or None if they are no numbers; categories may have a rule as well."""
        if "numbers" not in self._guessed:
            if self.machine_kind in "biufm":
                self._guessed["numbers"] = NumberRule(is_duration=self.machine_kind == "m")
            elif self.machine_kind == "M" or self.is_nested:
                self._guessed["numbers"] = None
            else:
                self._guessed["numbers"] = guess_number_rule(
                    self.levels, self.counts, decimal=self.decimal, read=self.read_levels
                )
        found: NumberRule | None = self._guessed["numbers"]
        return found

    @property
    def date_rule(self) -> DateRule | None:
        """How its cells are read as dates, or None if they are no dates."""
        if "dates" not in self._guessed:
            if self.machine_kind == "M":
                self._guessed["dates"] = DateRule()
            else:
                is_text = self.machine_kind == "O" and not self.is_nested
                self._guessed["dates"] = guess_date_rule(self.levels, self.counts, read=self.read_levels) if is_text else None
        found: DateRule | None = self._guessed["dates"]
        return found

    def _decide(self) -> ColumnKind:
        if self.is_nested:
            return "list"
        if self.is_category:
            return "categorical"
        if self.machine_kind == "M":
            return "date"
        # Numbers come before dates: 20230531 may be both, and most such columns are numbers.
        if self.machine_kind in "biufm" or not len(self) or not self.num_levels or self.number_rule is not None:
            return "numeric"
        if self._is_binary():
            return "binary"
        if self.date_rule is not None:
            return "date"
        num_known = int((self.codes >= 0).sum())
        # Many, mostly different and long: two of the three are true of names and categories too.
        if len(self.levels) > 20 and len(self.levels) > 0.5 * num_known and sum(map(len, self.levels)) > 30 * len(self.levels):
            return "text"
        return "categorical"

    def _is_binary(self) -> bool:
        # Bytes that are no UTF-8 hold the replacement character; only then are the cells worth looking at.
        if self.cells.dtype != object or not any("\ufffd" in level for level in self.levels):
            return False
        return any(isinstance(cell, (bytes, bytearray)) for cell in self.cells.tolist())

    @property
    def naming(self) -> Naming:
        """How the levels of this column are named: by value if all are plain numbers without zeros in front, else as they
        stand."""
        if self._naming is None:
            # 007 is a name: as a number it would be the same as 7.
            plain = self.machine_kind in "biuf" or all(
                _NUMBER.fullmatch(text) and not _ZERO_LED.match(text) for text in self.levels
            )
            self._naming = "numbers" if plain else "words"
        return self._naming

    def named(self, naming: Naming) -> tuple[Codes, list[str]]:
        """Return level numbers ``[N]``, -1 where missing, and the names of the levels under ``naming``."""
        names = [level_name(level, naming) for level in self.levels]
        # Nothing was merged, so the codes can stay.
        if names == self.levels:
            return self.codes, names
        merged: dict[str, int] = {}
        numbers = np.array([*(merged.setdefault(name, len(merged)) for name in names), -1], dtype=np.int64)
        return numbers[self.codes], list(merged)

    def numbers(self, rule: NumberRule | None = None) -> Parsed:
        """Return the cells as numbers, float64, by ``rule``, or by the column's own (the plain one if it holds no numbers)."""
        rule = rule or self.number_rule or NumberRule()
        missing = rule.missing
        return self._read(
            rule, lambda: blank_words(machine_numbers(self.cells), missing) if self.machine_kind in "biufm" else None
        )

    def dates(self, rule: DateRule | None = None) -> Parsed:
        """Return the cells as seconds since 1970 (UTC), float64, by ``rule``, or by the column's own."""
        rule = rule or self.date_rule or DateRule()
        return self._read(rule, lambda: machine_dates(self.cells) if self.machine_kind == "M" else None)

    def _read(self, rule: NumberRule | DateRule, direct: Any) -> Parsed:
        if rule not in self._parsed:
            values = direct()
            self._parsed[rule] = self._by_level(rule) if values is None else Parsed(values, {}, {})
        return self._parsed[rule]

    def read_levels(self, rule: NumberRule | DateRule) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the levels read by a rule, each rule once; whether it is tolerant makes no difference."""
        # Tolerance says what to do with what cannot be read, not what can be.
        rule = replace(rule, tolerant=False)
        if rule not in self._level_reads:
            self._level_reads[rule] = rule.read(self.levels)
        return self._level_reads[rule]

    def _by_level(self, rule: NumberRule | DateRule) -> Parsed:
        values, unread = self.read_levels(rule)
        rows = self.counts
        lost = {self.levels[index]: int(rows[index]) for index in np.flatnonzero(unread).tolist()}
        blanks = {self.levels[index]: int(rows[index]) for index in np.flatnonzero(np.isnan(values) & ~unread).tolist()}
        # Code -1 finds the NaN at the end.
        return Parsed(np.append(values, np.nan)[self.codes], blanks, lost)

    def notes(self) -> list[str]:
        """Return what there is to say about how a column of numbers or dates is read."""
        if self.kind == "numeric" and self.machine_kind == "O" and self.number_rule is not None:
            parsed, words, read = self.numbers(), number_notes, self.number_rule
        elif self.kind == "date" and self.machine_kind == "O" and self.date_rule is not None:
            parsed, words, read = self.dates(), date_notes, self.date_rule  # type: ignore[assignment]
        else:
            return []
        skipped = {*parsed.blanks, *parsed.unread}
        plain = NumberRule()
        # A cell that the plain rule does not read shows best what the column's rule is about.
        is_example = (level not in skipped and np.isnan(plain.read([level])[0][0]) for level in self.levels)
        example = (
            ""
            if read == replace(plain, tolerant=read.tolerant)
            else self.levels[next((index for index, found in enumerate(is_example) if found), 0)]
        )
        blanks, unread = Counter(parsed.blanks), Counter(parsed.unread)
        counts = (_commonest(blanks), blanks.total(), _commonest(unread), unread.total())
        return words(self.name, read, example, *counts)  # type: ignore[arg-type]

    def take(self, rows: NDArray[np.int64]) -> Column:
        """Return the column's rows ``rows``: they are read as, and together with, the whole column."""
        return _Part(self, rows)


class _Part(Column):
    """Some rows of a column. What they are is decided from all of its rows, and what is read is read for all."""

    def __init__(self, whole: Column, rows: NDArray[np.int64]) -> None:
        # Without the cells: they may have to be read anew.
        self._begin(whole.name, whole.decimal, whole.is_category)
        self._whole, self._rows = whole, rows
        self._own_cells: pd.Series | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def cells(self) -> pd.Series:
        # Readings come from the whole column, so that few parts need cells of their own.
        if self._own_cells is None:
            self._own_cells = self._whole.cells.iloc[self._rows]
        return self._own_cells

    @property
    def machine_kind(self) -> str:
        return self._whole.machine_kind

    @property
    def known(self) -> NDArray[np.bool_]:
        return self._whole.known[self._rows]

    @property
    def codes(self) -> Codes:
        return self._whole.codes[self._rows]

    @property
    def levels(self) -> list[str]:
        return self._whole.levels

    @property
    def num_levels(self) -> int:
        return self._whole.num_levels

    def texts_of(self, rows: NDArray[np.int64]) -> list[str | None]:
        return self._whole.texts_of(self._rows[rows])

    @property
    def kind(self) -> ColumnKind:
        return self._whole.kind

    @property
    def naming(self) -> Naming:
        return self._whole.naming

    @property
    def number_rule(self) -> NumberRule | None:
        return self._whole.number_rule

    @property
    def date_rule(self) -> DateRule | None:
        return self._whole.date_rule

    def numbers(self, rule: NumberRule | None = None) -> Parsed:
        parsed = self._whole.numbers(rule)
        return replace(parsed, values=parsed.values[self._rows])

    def dates(self, rule: DateRule | None = None) -> Parsed:
        parsed = self._whole.dates(rule)
        return replace(parsed, values=parsed.values[self._rows])


def _commonest(words: Counter[str]) -> Sequence[str]:
    return [word for word, _ in words.most_common(3)]


def as_column(values: Any, name: str = "") -> Column:
    """Return ``values`` if it is a column already, else a pandas Series as one."""
    return values if isinstance(values, Column) else Column(name or str(values.name), values)

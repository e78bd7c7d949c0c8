"""TableEncoder: a table's columns as ``numeric`` and ``categorical`` inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.columns import CategoricalColumn, DateColumn, NumericColumn
from graftwork.data.encoders.history import HistoryColumn, fit_items
from graftwork.data.encoders.words import WordsColumn, most_words
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.reading.column import Column, ColumnKind, as_column
from graftwork.data.reading.nested import split_entry
from graftwork.data.reading.phrases import holds_phrases, only_names_rows
from graftwork.data.reading.table import Table, as_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Encoding", "TableEncoder", "column_type"]

Encoding = NumericColumn | CategoricalColumn | DateColumn | HistoryColumn | WordsColumn
_ARRAYS: dict[str, type[Any]] = {"numeric": np.float32, "categorical": np.int64}
_TYPES: dict[str, type[Any]] = {
    "numeric": NumericColumn,
    "categorical": CategoricalColumn,
    "date": DateColumn,
    "words": WordsColumn,
}


def column_type(values: pd.Series | Column) -> ColumnKind:
    """Return how a feature column is read: ``numeric``, ``date``, ``categorical``, ``text`` for long, nearly all distinct
    strings, ``list`` or ``binary``."""
    return as_column(values).kind


class TableEncoder(Encoder):
    """Numbers standardised, dates taken apart, levels numbered, frequent words of short texts flagged; fitted on training rows only.

    A column of short texts is two encodings, its levels and its words; one that would only name rows is its words alone. The inputs
    are ``numeric`` float32 ``[N, F]`` and ``categorical`` int64 ``[N, C]``, as :class:`~graftwork.data.suite.Suite`
    says. Histories follow all other columns, with as many categorical columns each as they have positions.
    """

    kind: ClassVar[str] = "table"

    def __init__(self, columns: Sequence[Encoding], alternatives: Sequence[Collection[str]] = ()) -> None:
        # Stable: histories go behind, everything else keeps the order of the columns.
        self.columns = tuple(sorted(columns, key=lambda column: isinstance(column, HistoryColumn)))
        self.alternatives = tuple(dict.fromkeys(frozenset(names) for names in alternatives))
        """Of a suite of several data sets, the columns of each: a table needs those of one of them. Empty if all are needed."""

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame | Table,
        names: Sequence[str],
        *,
        rows: NDArray[np.int64] | None = None,
        histories: Mapping[str, str] | None = None,
        missing: Sequence[str] = (),
        alternatives: Sequence[Collection[str]] = (),
    ) -> Self:
        """Fit an encoder.

        Args:
            frame: The raw table.
            names: Feature columns; how they are read is decided on all rows, their statistics come from ``rows``.
            rows: Training rows; all by default.
            histories: Further columns, ``{history: item}``; the item is one of ``names``, the same for all.
            missing: Words and numbers that mean a missing cell; ``frame`` holds none of them any more, later tables do.
            alternatives: Columns of each data set that the table was made of, if not all have the same.
        """
        columns: list[Encoding] = []
        past = dict(histories or {})
        table = as_table(frame)
        # A history's own column and the item's are read once, even if they are among the names.
        train = table.take(np.arange(len(table)) if rows is None else rows, list(dict.fromkeys([*names, *past])))
        items: dict[str, CategoricalColumn] = {}
        for name in names:
            if name in past.values():
                items[name] = fit_items(train[name], {history: train[history] for history in past})
                columns.append(items[name])
                continue
            phrases = holds_phrases(table[name])
            if not (phrases and (only_names_rows(table[name]) or table[name].kind == "text")):
                # The kind is that of the whole table, the statistics those of the training rows.
                made: Any = _TYPES.get(table[name].kind, CategoricalColumn).fit(name, train[name])
                # Levels that training does not have are missing anyway, so that categories need no words.
                if missing and isinstance(made, NumericColumn | DateColumn):
                    rule: Any = made.rule
                    made = replace(made, rule=replace(rule, missing=tuple(missing)))  # type: ignore[arg-type]
                columns.append(made)
            if phrases:
                columns.append(WordsColumn.fit(name, train[name], most=most_words(len(table))))
        made_of = cls([*columns, *(HistoryColumn(name, items[item]) for name, item in past.items())])
        own = [
            [name for name in made_of.names if {name, (split_entry(name) or (name,))[0]} & set(names)] for names in alternatives
        ]
        return made_of if all(len(names) == len(made_of.names) for names in own) else cls(made_of.columns, own)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that :meth:`transform` reads; of several data sets those of one must be there."""
        return tuple(self.by_name())

    def lacking(self, absent: Collection[str]) -> list[str]:
        """Return which of the absent columns must be there: with :attr:`alternatives`, those of the data set that lacks the fewest."""
        each = self.alternatives or (frozenset(self.names),)
        found = min((names.intersection(absent) for names in each), key=len)
        return [name for name in self.names if name in found]

    def _with_absent(self, source: Table) -> Table:
        absent = [name for name in self.names if name not in source]
        return source.with_empty(absent) if absent and not self.lacking(absent) else source

    def by_name(self) -> dict[str, list[Encoding]]:
        """Return the encodings of each column, in order: of short texts there are two, levels and words."""
        found: dict[str, list[Encoding]] = {}
        for column in self.columns:
            found.setdefault(column.name, []).append(column)
        return found

    def transform(self, source: pd.DataFrame | Table) -> dict[str, NDArray[Any]]:
        """Encode a table; columns that are not features are ignored.

        Cells are read as in training, so that the codes of a row do not depend on the other rows.

        Raises:
            DataError: If feature columns are missing (all are named), or cells of a column of numbers or dates are none.
        """
        source = as_table(source)
        self._check_vectors(source)
        missing = self.lacking([name for name in self.names if name not in source])
        if missing:
            hints = [f"{name!r}{did_you_mean(name, map(str, source.columns))}" for name in missing]
            needed = f"the {len(self.names)} columns" if not self.alternatives else "the columns of any data set"
            raise DataError(
                f"The table lacks {len(missing)} of {needed} that the model was trained on: {short_list(hints)}. Add them (cells may "
                "be empty)."
            )
        source = self._with_absent(source)
        # One column after the other into its place: a table of them all in double precision would be twice as large. A table without
        # numbers still has the array, zero wide: backbones expect both.
        widths = {array: sum(_width(column) for column in self.columns if _array_of(column) == array) for array in _ARRAYS}
        made: dict[str, NDArray[Any]] = {
            array: np.empty((len(source), widths[array]), dtype=dtype) for array, dtype in _ARRAYS.items()
        }
        ends = dict.fromkeys(_ARRAYS, 0)
        for column in self.columns:
            array = _array_of(column)
            start, ends[array] = ends[array], ends[array] + _width(column)
            if isinstance(column, HistoryColumn):
                made[array][:, start : ends[array]] = column.encode(source[column.name])
            elif isinstance(column, CategoricalColumn):
                made[array][:, start] = column.encode(source[column.name])
            else:
                for place, values in enumerate(column.encode(source[column.name]), start):
                    made[array][:, place] = values
        return made

    def _check_vectors(self, source: Table) -> None:
        """Refuse vectors that are longer or shorter than those of training.

        Raises:
            DataError: If the lists of a column have another length, or several.
        """
        # Names of entries of a vector, such as `v[0]`, say how long the vector was; a column of that very name is none.
        sizes = Counter(
            entry[0] for name in self.names if (entry := split_entry(name)) is not None and name not in source.columns
        )
        for name, size in sizes.items():
            if name in source and source[name].num_entries != size and source[name].known.any():
                raise DataError(
                    f"Column {name!r} held lists of {size} numbers in training; now its lists are of other lengths, or hold "
                    f"something else. Give {size} numbers a row, or leave the cell empty."
                )

    def cells_read_as_missing(self, source: Table) -> dict[str, Counter[str]]:
        """Return cells of number and date columns that are not empty but count as missing, with the rows of each, by column."""
        found = {}
        source = self._with_absent(source)
        for column in self.columns:
            if isinstance(column, NumericColumn | DateColumn):
                cells = source[column.name]
                parsed = cells.numbers(column.rule) if isinstance(column, NumericColumn) else cells.dates(column.rule)
                if parsed.blanks or parsed.unread:
                    found[column.name] = Counter({**parsed.blanks, **parsed.unread})
        return found

    def numeric_names(self) -> list[str]:
        """Return the name of each numeric input column, in order, for plots and tables."""
        names: list[str] = []
        for column in self.columns:
            if isinstance(column, NumericColumn):
                names.append(column.name)
            elif isinstance(column, DateColumn):
                names += [f"{column.name} ({part})" for part, _, _ in column.parts]
            elif isinstance(column, WordsColumn):
                names += [f"{column.name} ({word})" for word in column.words]
            if isinstance(column, NumericColumn | DateColumn) and column.has_missing:
                names.append(f"{column.name} (missing)")
        return names

    def places(self) -> dict[str, dict[str, list[int]]]:
        """Return where each column lies in ``numeric`` and ``categorical``; entries of a vector are one column."""
        found: dict[str, dict[str, list[int]]] = {}
        ends = dict.fromkeys(_ARRAYS, 0)
        for column in self.columns:
            entry = split_entry(column.name)
            name = entry[0] if entry is not None else column.name
            array = _array_of(column)
            start = ends[array]
            ends[array] = start + _width(column)
            found.setdefault(name, {}).setdefault(array, []).extend(range(start, ends[array]))
        return found

    def sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves; with histories also their layout, as :mod:`graftwork.nn.fields` reads
        it."""
        plain = [column for column in self.columns if isinstance(column, CategoricalColumn)]
        sizes = {"num_numeric": len(self.numeric_names()), "cardinalities": [column.cardinality for column in plain]}
        return sizes | _layout(plain, [column for column in self.columns if isinstance(column, HistoryColumn)])

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        state = {"kind": self.kind, "version": 2, "columns": [column.state() for column in self.columns]}
        return state | ({"alternatives": [sorted(names) for names in self.alternatives]} if self.alternatives else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableEncoder:
        """Restore from :meth:`state`."""
        columns: list[Encoding] = [
            _TYPES[column["type"]].from_state(column) for column in state["columns"] if column["type"] != "history"
        ]
        # Histories share the levels of their item column, which therefore has to be read first.
        items = {column.name: column for column in columns if isinstance(column, CategoricalColumn)}
        histories = [column for column in state["columns"] if column["type"] == "history"]
        columns += [HistoryColumn.from_state(column, items[column["item"]]) for column in histories]
        return cls(columns, state.get("alternatives", ()))


def _array_of(column: Encoding) -> str:
    """Return the array that holds a column."""
    return "categorical" if isinstance(column, CategoricalColumn | HistoryColumn) else "numeric"


def _width(column: Encoding) -> int:
    """Return how many positions a column takes."""
    if isinstance(column, CategoricalColumn):
        return 1
    if isinstance(column, HistoryColumn):
        return column.length
    if isinstance(column, WordsColumn):
        return len(column.words)
    return (len(column.parts) if isinstance(column, DateColumn) else 1) + column.has_missing


def _layout(plain: Sequence[CategoricalColumn], histories: Sequence[HistoryColumn]) -> dict[str, Any]:
    """Return the input sizes that histories add or change, empty without any."""
    if not histories:
        return {}
    cardinalities = [column.cardinality for column in plain]
    vocabularies = list(range(len(plain)))
    sequences: dict[str, list[int]] = {}
    # All histories have one item column.
    query = [column.name for column in plain].index(histories[0].item.name)
    for column in histories:
        start = len(cardinalities)
        cardinalities += [column.item.cardinality] * column.length
        # Positions share the item's embedding, so that an id means the same everywhere.
        vocabularies += [query] * column.length
        sequences[column.name] = [start, len(cardinalities)]
    return {"cardinalities": cardinalities, "vocabularies": vocabularies, "sequences": sequences, "query": query}

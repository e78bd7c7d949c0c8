"""TableEncoder: a table's columns as ``numeric`` and ``categorical`` inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.columns import CategoricalColumn, DateColumn, NumericColumn, parse_dates, text_codes, to_numbers
from graftwork.data.encoders.history import HistoryColumn, fit_items
from graftwork.data.names import did_you_mean, short_list

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableEncoder", "column_type"]

_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}([T ].*)?$")
Column = NumericColumn | CategoricalColumn | DateColumn | HistoryColumn
_TYPES: dict[str, type[Any]] = {"numeric": NumericColumn, "categorical": CategoricalColumn, "date": DateColumn}


def column_type(values: pd.Series) -> str:
    """Return how a feature column is read: ``numeric``, ``date``, ``categorical``, or ``text`` for long, nearly all distinct strings."""
    kind = values.dtype.kind
    if kind in "biuf" or not len(values):
        return "numeric"
    if kind == "M" or str(values.dtype).startswith("datetime64"):
        return "date"
    if str(values.dtype) == "category":
        return "categorical"
    codes, levels = text_codes(values)
    if not levels or not to_numbers(values)[1]:
        return "numeric"
    shaped = [_DATE.match(level) is not None for level in levels[:200]]
    if sum(shaped) > 0.95 * len(shaped) and parse_dates(values)[1] <= 0.05 * int((codes >= 0).sum()):
        return "date"
    num_known = int((codes >= 0).sum())
    if len(levels) > 20 and len(levels) > 0.5 * num_known and sum(map(len, levels)) > 30 * len(levels):
        return "text"
    return "categorical"


class TableEncoder(Encoder):
    """Numbers standardised, dates taken apart, levels numbered; fitted on training rows only.

    The inputs are ``numeric`` float32 ``[N, F]`` and ``categorical`` int64 ``[N, C]``, as :class:`~graftwork.data.suite.Suite` says.
    Histories follow all other columns, with as many categorical columns each as they have positions.
    """

    kind: ClassVar[str] = "table"

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(sorted(columns, key=lambda column: isinstance(column, HistoryColumn)))

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        names: Sequence[str],
        *,
        rows: NDArray[np.int64] | None = None,
        histories: Mapping[str, str] | None = None,
    ) -> Self:
        """Fit an encoder.

        Args:
            frame: The raw table.
            names: Feature columns; their types are decided on all rows, their statistics on ``rows``.
            rows: Training rows; all by default.
            histories: Further columns, ``{history: item}``; the item is one of ``names``, the same for all.
        """
        columns: list[Column] = []
        train = frame if rows is None else frame.iloc[rows]
        past = dict(histories or {})
        items: dict[str, CategoricalColumn] = {}
        for name in names:
            if name in past.values():
                items[name] = fit_items(train[name], {history: train[history] for history in past})
                columns.append(items[name])
            else:
                columns.append(
                    _TYPES[{"text": "categorical"}.get(found := column_type(frame[name]), found)].fit(name, train[name])
                )
        return cls([*columns, *(HistoryColumn(name, items[item]) for name, item in past.items())])

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that :meth:`transform` needs."""
        return tuple(column.name for column in self.columns)

    def transform(self, source: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Encode a table; columns that are not features are ignored.

        Raises:
            DataError: If feature columns are missing (all are named), or cells of a numeric column are not numbers.
        """
        missing = [name for name in self.names if name not in source.columns]
        if missing:
            hints = [f"{name!r}{did_you_mean(name, map(str, source.columns))}" for name in missing]
            raise DataError(
                f"The table lacks {len(missing)} of the {len(self.names)} columns that the model was trained on: {short_list(hints)}. "
                "Add them (cells may be empty)."
            )
        numeric: list[NDArray[np.float64]] = []
        categorical: list[NDArray[np.int64]] = []
        for column in self.columns:
            if isinstance(column, CategoricalColumn | HistoryColumn):
                categorical.append(column.encode(source[column.name]))
            else:
                numeric += column.encode(source[column.name])
        return {
            "numeric": np.stack(numeric, axis=1).astype(np.float32) if numeric else np.zeros((len(source), 0), dtype=np.float32),
            "categorical": np.column_stack(categorical) if categorical else np.zeros((len(source), 0), dtype=np.int64),
        }

    def numeric_names(self) -> list[str]:
        """Return the name of each numeric input column, in order, for plots and tables."""
        names: list[str] = []
        for column in self.columns:
            if isinstance(column, NumericColumn):
                names.append(column.name)
            elif isinstance(column, DateColumn):
                names += [f"{column.name} ({part})" for part, _, _ in column.parts]
            if isinstance(column, NumericColumn | DateColumn) and column.has_missing:
                names.append(f"{column.name} (missing)")
        return names

    def input_sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves; with histories also their layout, as :mod:`graftwork.nn.fields` reads it."""
        plain = [column for column in self.columns if isinstance(column, CategoricalColumn)]
        sizes = {"num_numeric": len(self.numeric_names()), "cardinalities": [column.cardinality for column in plain]}
        return sizes | _layout(plain, [column for column in self.columns if isinstance(column, HistoryColumn)])

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {"kind": self.kind, "version": 1, "columns": [column.state() for column in self.columns]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableEncoder:
        """Restore from :meth:`state`."""
        columns: list[Column] = [
            _TYPES[column["type"]].from_state(column) for column in state["columns"] if column["type"] != "history"
        ]
        items = {column.name: column for column in columns if isinstance(column, CategoricalColumn)}
        histories = [column for column in state["columns"] if column["type"] == "history"]
        return cls([*columns, *(HistoryColumn.from_state(column, items[column["item"]]) for column in histories)])


def _layout(plain: Sequence[CategoricalColumn], histories: Sequence[HistoryColumn]) -> dict[str, Any]:
    """Return the input sizes that histories add or change, empty without any."""
    if not histories:
        return {}
    cardinalities = [column.cardinality for column in plain]
    vocabularies = list(range(len(plain)))
    sequences: dict[str, list[int]] = {}
    query = [column.name for column in plain].index(histories[0].item.name)
    for column in histories:
        start = len(cardinalities)
        cardinalities += [column.item.cardinality] * column.length
        vocabularies += [query] * column.length
        sequences[column.name] = [start, len(cardinalities)]
    return {"cardinalities": cardinalities, "vocabularies": vocabularies, "sequences": sequences, "query": query}

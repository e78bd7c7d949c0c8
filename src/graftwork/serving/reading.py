"""The rows of a request: checked cell by cell, ready for the run's encoder, and described for the schema and the page. No torch.

A reader brings every cell into one form (a number, a text or a date), so that what a row is encoded to never depends on the rows of other
requests in its batch.
"""

from __future__ import annotations

import datetime
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.optional import require
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.columns import as_text
from graftwork.data.encoders.history import HISTORY_FORM, history_ids
from graftwork.data.names import did_you_mean, short_list
from graftwork.serving.asking import is_number, is_text
from graftwork.serving.problems import Problem

__all__ = ["MAX_TEXT", "RowReader", "TableReader", "TextReader"]

MAX_TEXT = 100_000
"""Characters of one text."""
_MOST_PROBLEMS = 20
"""Faults that one answer lists."""
_MOST_LEVELS = 256
"""Levels of a column that a description lists; a log has tens of thousands of users, and a page cannot show them."""
_MOST_IDS = 10_000
"""Ids in one history; only the last ones count, and no more than these are read."""
_EPOCH = datetime.datetime(1970, 1, 1)


class RowReader(ABC):
    """Reads the rows of a request for one encoder.

    Args:
        encoder: The run's encoder.
        max_rows: Most rows of one request.
    """

    keys: tuple[str, ...]
    """Keys of the request that can hold rows; exactly one of them must be there."""

    def __init__(self, encoder: Encoder, max_rows: int) -> None:
        self.encoder = encoder
        self.max_rows = max_rows

    def read(self, content: Mapping[str, Any], problems: list[Problem]) -> list[Any]:
        """Return the rows of a request in the form that :meth:`encode` takes; faults go into ``problems``."""
        present = [key for key in self.keys if key in content]
        if len(present) != 1:
            allowed = (
                f"exactly one of the keys {', '.join(self.keys)}"
                if len(self.keys) > 1
                else f"a list under the key {self.keys[0]}"
            )
            problems.append(Problem(" and ".join(present) or self.keys[0], None, allowed))
            return []
        key, items = present[0], content[present[0]]
        if not isinstance(items, list) or not 1 <= len(items) <= self.max_rows:
            problems.append(Problem(key, items, f"a list of 1 to {self.max_rows} items"))
            return []
        rows: list[Any] = []
        for index, item in enumerate(items):
            rows.append(self.read_one(key, f"{key}[{index}]", item, problems))
            if len(problems) >= _MOST_PROBLEMS:
                break
        return rows

    @abstractmethod
    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return one row; ``place`` names it in messages."""

    def finish(self, rows: list[Any]) -> list[Any]:
        """Do what is slow to checked rows, in another thread than the one that answers."""
        return rows

    @abstractmethod
    def blank(self) -> list[Any]:
        """Return one row of nothing in particular, to try a session with."""

    @abstractmethod
    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the model's inputs for rows of one or several requests."""

    @abstractmethod
    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of one row, by key."""

    @abstractmethod
    def inputs(self) -> list[dict[str, Any]]:
        """Return what the page needs to build its form: name, type, and levels or typical values."""


class TableReader(RowReader):
    """Rows of a table: objects with a value, or null, for every column; other keys are ignored."""

    keys = ("rows",)

    def __init__(self, encoder: Any, max_rows: int) -> None:
        super().__init__(encoder, max_rows)
        self._columns = [(column.name, str(column.state()["type"])) for column in encoder.columns]

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return a tuple of cells in the order of the columns."""
        if not isinstance(item, dict):
            problems.append(Problem(place, item, f"an object with the columns {short_list([name for name, _ in self._columns])}"))
            return None
        cells = []
        for name, kind in self._columns:
            if name not in item:
                problems.append(Problem(f"{place}.{name}", None, f"a value or null.{did_you_mean(name, set(item) - {name})}"))
                continue
            fault, cell = _READ[kind](item[name])
            if fault:
                problems.append(Problem(f"{place}.{name}", item[name], fault))
            cells.append(cell)
        return tuple(cells)

    def blank(self) -> list[Any]:
        """Return a row without any value."""
        return [tuple(_READ[kind](None)[1] for _, kind in self._columns)]

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return ``numeric`` and ``categorical``."""
        pandas = require("pandas", extra="serve", purpose="Serving a table model")
        frame = pandas.DataFrame(index=range(len(rows)))
        columns = {
            name: pandas.Series(np.array(cells, dtype=_DTYPES[kind])) if kind in _DTYPES else _objects(pandas, cells)
            for (name, kind), cells in zip(self._columns, zip(*rows))
        }
        return self.encoder.transform(pandas.DataFrame(columns) if columns else frame)

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of a row."""
        properties = {name: dict(_SCHEMAS[kind]) for name, kind in self._columns}
        return {"rows": {"type": "object", "required": list(properties), "properties": properties}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry per column; of many levels the most frequent ones are listed."""
        found = []
        for column in getattr(self.encoder, "columns", ()):
            state = column.state()
            one: dict[str, Any] = {"name": state["name"], "type": state["type"]}
            if state["type"] == "numeric":
                middle = state["knots"][len(state["knots"]) // 2] if state["knots"] else state["mean"]
                one |= {"typical": _tidy(middle), "spread": _tidy(state["std"])}
            elif state["type"] == "categorical":
                one |= {"levels": state["levels"][:_MOST_LEVELS], "num_levels": len(state["levels"])}
            elif state["type"] == "history":
                one |= {"item": state["item"], "length": state["length"]}
            else:
                one["typical"] = _typical_date(state["parts"])
            found.append(one)
        return found


class TextReader(RowReader):
    """Texts, or rows with the text columns of the run."""

    def __init__(self, encoder: Any, max_rows: int) -> None:
        super().__init__(encoder, max_rows)
        self._columns = tuple(encoder.columns)
        self.keys = ("texts", "rows") if self._columns else ("texts",)

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return the text."""
        if key == "texts":
            if not is_text(item) or len(item) > MAX_TEXT:
                problems.append(Problem(place, item, f"a text of at most {MAX_TEXT} characters, in valid Unicode"))
                return ""
            return item
        if not isinstance(item, dict):
            problems.append(Problem(place, item, f"an object with the columns {short_list(self._columns)}"))
            return ""
        parts = []
        for name in self._columns:
            if name not in item:
                problems.append(Problem(f"{place}.{name}", None, f"a text or null.{did_you_mean(name, item)}"))
                continue
            fault, cell = _read_level(item[name])
            if fault:
                problems.append(Problem(f"{place}.{name}", item[name], fault))
            parts.append(cell or "")
        return "\n".join(filter(None, parts))

    def blank(self) -> list[Any]:
        """Return a text."""
        return ["example"]

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the token numbers."""
        return self.encoder.transform(list(rows))

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schemas of a text and of a row."""
        schemas: dict[str, dict[str, Any]] = {"texts": {"type": "string", "maxLength": MAX_TEXT}}
        if self._columns:
            cell = {"type": ["string", "number", "boolean", "null"], "maxLength": MAX_TEXT}
            schemas["rows"] = {
                "type": "object",
                "required": list(self._columns),
                "properties": dict.fromkeys(self._columns, cell),
            }
        return schemas

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry: the text."""
        return [{"name": " and ".join(self._columns) or "text", "type": "text"}]


def _objects(pandas: Any, cells: Sequence[Any]) -> Any:
    return pandas.Series(list(cells), dtype=object)


def _read_number(value: Any) -> tuple[str, float]:
    if value is None:
        return "", math.nan
    if isinstance(value, bool) or is_number(value):
        return "", float(value)
    return "a number from -1e300 to 1e300, true, false or null", math.nan


def _read_level(value: Any) -> tuple[str, str | None]:
    """Read a cell as the text that names its level, as the encoder does."""
    fine = value is None or isinstance(value, bool) or is_number(value) or (is_text(value) and len(value) <= MAX_TEXT)
    return ("", as_text(value)) if fine else (f"a text of at most {MAX_TEXT} characters, a number, true, false or null", None)


def _read_history(value: Any) -> tuple[str, tuple[str, ...]]:
    """Read a cell as the ids in it, as the encoder does."""
    items = value if isinstance(value, list) else [value]
    fine = len(items) <= _MOST_IDS and not any(_read_level(item)[0] for item in items)
    return ("", history_ids(value)) if fine else (f"{HISTORY_FORM} (at most {_MOST_IDS}), or null", ())


def _read_date(value: Any) -> tuple[str, Any]:
    """Read ISO 8601 as the encoder does: without a zone it is taken as it stands, with one it becomes UTC."""
    missing = np.datetime64("NaT", "ms")
    if value is None:
        return "", missing
    try:
        date = datetime.datetime.fromisoformat(value)
        if date.tzinfo is not None:
            date = date.astimezone(datetime.UTC).replace(tzinfo=None)
        return "", np.datetime64((date - _EPOCH) // datetime.timedelta(milliseconds=1), "ms")
    except (TypeError, ValueError, OverflowError):
        return "a date such as 2026-01-31 or 2026-01-31T12:00:00, or null", missing


_READ: dict[str, Any] = {"numeric": _read_number, "categorical": _read_level, "date": _read_date, "history": _read_history}
_DTYPES: dict[str, Any] = {"numeric": np.float64, "date": "datetime64[ms]"}
_LEVEL: dict[str, Any] = {
    "type": ["string", "number", "boolean", "null"],
    "maxLength": MAX_TEXT,
    "minimum": -1e300,
    "maximum": 1e300,
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "numeric": {"type": ["number", "boolean", "null"], "minimum": -1e300, "maximum": 1e300},
    "categorical": _LEVEL,
    "history": {
        **_LEVEL,
        "type": ["array", *_LEVEL["type"]],
        "items": _LEVEL,
        "maxItems": _MOST_IDS,
        "description": f"{HISTORY_FORM[0].upper()}{HISTORY_FORM[1:]}.",
    },
    "date": {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}, {"type": "null"}]},
}


def _tidy(number: float) -> float:
    """Round to four digits, for people."""
    return float(f"{number:.4g}")


def _typical_date(parts: Sequence[Sequence[Any]]) -> str:
    """Return the mean training date if the encoder kept it, else the beginning of 2020."""
    days = next((mean for part, mean, _ in parts if part == "elapsed"), None)
    date = _EPOCH + datetime.timedelta(days=float(days)) if days is not None else datetime.datetime(2020, 1, 1)
    return date.date().isoformat()

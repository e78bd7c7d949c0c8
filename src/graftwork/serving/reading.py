"""The rows of a request: checked cell by cell, ready for the run's encoder, and described for the schema and the page. No torch.

A reader brings every cell into one form (a number, a text or a date) by the rule that the encoder keeps of training, so that a
row gets the numbers that ``predict`` gives it, whatever other rows are in its batch.
"""

from __future__ import annotations

import datetime
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from graftwork.core.optional import require
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.history import HISTORY_FORM, history_ids
from graftwork.data.names import short_list
from graftwork.data.reading.cells import as_text, missing_notes
from graftwork.data.reading.missing_words import is_missing_word, missing_numbers
from graftwork.data.reading.nested import find_cell, split_entry
from graftwork.serving.asking import is_number, is_text
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import MOST_PROBLEMS, Problem, hint

__all__ = ["MAX_TEXT", "RowReader", "TableReader", "TextReader"]

MAX_TEXT = 100_000
"""Characters of one text."""
_MOST_LEVELS = 256
"""Levels of a column that a description lists; a log has tens of thousands of users, and a page cannot show them."""
_MOST_IDS = 10_000
"""Ids in one history; only the last ones count, and no more than these are read."""
_ABSENT = object()
_EPOCH = datetime.datetime(1970, 1, 1)


class RowReader(ABC):
    """Reads the rows of a request for one encoder.

    Args:
        encoder: The run's encoder.
        limits: Of requests.
    """

    keys: tuple[str, ...]
    """Keys of the request that can hold rows; exactly one of them must be there."""

    def __init__(self, encoder: Encoder, limits: ServeLimits) -> None:
        self.encoder = encoder
        self.max_rows = limits.max_rows

    def read(self, content: Mapping[str, Any], problems: list[Problem]) -> list[Any]:
        """Return the rows of a request in the form that :meth:`encode` takes; faults go into ``problems``."""
        present = [key for key in self.keys if key in content]
        # Both keys at once would leave open which rows are meant.
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
            # Enough to see what is wrong; a thousand wrong rows would give a thousand lines.
            if len(problems) >= MOST_PROBLEMS:
                break
        return rows

    @abstractmethod
    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return one row; ``place`` names it in messages."""

    def notes(self, rows: Sequence[Any]) -> list[str]:
        """Return what there is to say about how checked rows were read."""
        return []

    def finish(self, rows: list[Any]) -> list[Any]:
        """Do what is slow to checked rows, in another thread than the one that answers."""
        return rows

    @property
    def is_slow(self) -> bool:
        """Whether :meth:`finish` does anything."""
        return type(self).finish is not RowReader.finish

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

    def columns(self) -> list[dict[str, Any]]:
        """Return the same where rows are objects: one entry per column."""
        return self.inputs()


class TableReader(RowReader):
    """Rows of a table: objects with a value, or null, for every column; other keys are ignored.

    What was nested in training may be nested here: ``{"place": {"lat": 1}}`` holds the column ``place.lat``, a list the columns
    ``v[0]``, ``v[1]`` ...
    """

    keys = ("rows",)

    def __init__(self, encoder: Any, limits: ServeLimits) -> None:
        super().__init__(encoder, limits)
        self._lacking, self._alternatives = encoder.lacking, encoder.alternatives
        # Levels and words of one column are read from one cell.
        self._encodings = [found[0] for found in encoder.by_name().values()]
        self._columns = [(column.name, str(column.state()["type"])) for column in self._encodings]
        # Columns called `v[0]`, `v[1]` in training may come as one list.
        entries = [entry[0] for name, _ in self._columns if (entry := split_entry(name)) is not None]
        self._vectors = {name: size for name, size in Counter(entries).items() if size > 1}
        self._read = [_cell_reader(column, kind) for column, (_, kind) in zip(self._encodings, self._columns)]

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return a tuple of cells in the order of the columns."""
        if not isinstance(item, dict):
            problems.append(Problem(place, item, f"an object with the columns {short_list([name for name, _ in self._columns])}"))
            return None
        for name, size in self._vectors.items():
            # A list of another length would silently leave cells out.
            vector = find_cell(item, name)[1]
            if isinstance(vector, list) and len(vector) != size:
                problems.append(Problem(f"{place}.{name}", vector, f"a list of {size} numbers, or null"))
        cells, absent = [], []
        for (name, _), read_cell in zip(self._columns, self._read):
            value = item.get(name, _ABSENT)
            # Flat keys win: a name with a dot may be a column of its own.
            if value is _ABSENT:
                found, value = find_cell(item, name)
                if not found:
                    absent.append(name)
                    value = None
            fault, cell = read_cell(value)
            if fault:
                problems.append(Problem(f"{place}.{name}", value, fault))
            cells.append(cell)
        for name in self._lacking(absent) if absent else ():
            said = f"this column, with a value or null; the row has no such key.{hint(name, item, problems)}"
            problems.append(Problem(f"{place}.{name}", None, said))
        return tuple(cells)

    def blank(self) -> list[Any]:
        """Return a row without any value."""
        return [tuple(read_cell(None)[1] for read_cell in self._read)]

    def notes(self, rows: Sequence[Any]) -> list[str]:
        """Return one sentence per column whose cells count as missing although they are not empty."""
        found = {}
        for (name, _), cells in zip(self._columns, zip(*rows)):
            words = Counter(cell.text for cell in cells if type(cell) is _ReadAsMissing)
            if words:
                found[name] = words
        return missing_notes(found)

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return ``numeric`` and ``categorical``."""
        pandas = require("pandas", extra="serve", purpose="Serving a table model")
        # Without columns pandas could not know how many rows there are.
        frame = pandas.DataFrame(index=range(len(rows)))
        columns = {
            name: _objects(pandas, cells) if kind not in ("numeric", "date") else pandas.Series(_numbers(cells, kind))
            for (name, kind), cells in zip(self._columns, zip(*rows))
        }
        return self.encoder.transform(pandas.DataFrame(columns) if columns else frame)

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of a row."""
        properties = {name: dict(_SCHEMAS[kind]) for name, kind in self._columns}
        needed = [name for name in properties if all(name in names for names in self._alternatives)]
        return {"rows": {"type": "object", "required": needed, "properties": properties}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry per column; of many levels the most frequent ones are listed."""
        found = []
        for column in self._encodings:
            state = column.state()
            one: dict[str, Any] = {"name": state["name"], "type": state["type"]}
            if state["type"] == "numeric":
                # The middle knot is about the median of training; columns without knots have their mean.
                middle = state["knots"][len(state["knots"]) // 2] if state["knots"] else state["mean"]
                one |= {"typical": _tidy(middle), "spread": _tidy(state["std"])}
            elif state["type"] == "categorical":
                one |= {"levels": state["levels"][:_MOST_LEVELS], "num_levels": len(state["levels"])}
            elif state["type"] == "history":
                one |= {"item": state["item"], "length": state["length"]}
            elif state["type"] == "words":
                one["type"] = "text"
            else:
                one["typical"] = _typical_date(state["parts"])
            found.append(one)
        return found


class TextReader(RowReader):
    """Texts, or rows with the text columns of the run."""

    def __init__(self, encoder: Any, limits: ServeLimits) -> None:
        super().__init__(encoder, limits)
        self._columns = tuple(encoder.columns)
        self._missing = tuple(encoder.missing)
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
                problems.append(Problem(f"{place}.{name}", None, f"a text or null.{hint(name, item, problems)}"))
                continue
            fault, cell = _read_level(item[name])
            if fault:
                problems.append(Problem(f"{place}.{name}", item[name], fault))
            # Missing cells are left out of the text, as in training.
            parts.append("" if cell is None or is_missing_word(cell, self._missing) else cell)
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

    def columns(self) -> list[dict[str, Any]]:
        """Return one entry per text column."""
        return [{"name": name, "type": "text"} for name in self._columns]


def _objects(pandas: Any, cells: Sequence[Any]) -> Any:
    return pandas.Series(list(cells), dtype=object)


class _ReadAsMissing(float):
    """NaN for a text that is no number or date but was accepted: its column had such cells in training, or it is a word for a
    missing cell."""

    text: str

    def __new__(cls, text: str) -> Self:
        cell = super().__new__(cls, math.nan)
        cell.text = text
        return cell


def _numbers(cells: Sequence[float], kind: str) -> Any:
    """Return cells as numbers, or, for dates, their seconds since 1970 as dates."""
    numbers = np.array(cells, dtype=np.float64)
    if kind == "numeric":
        return numbers
    # Milliseconds reach further than pandas' usual nanoseconds.
    dates = np.full(len(numbers), np.datetime64("NaT", "ms"))
    known = ~np.isnan(numbers)
    dates[known] = np.round(numbers[known] * 1000.0).astype(np.int64).astype("datetime64[ms]")
    return dates


def _cell_reader(column: Any, kind: str) -> Callable[[Any], tuple[str, Any]]:
    """Return the function that reads one cell of a column: what is wrong with it (or nothing), and the cell."""
    if kind in ("categorical", "history", "words"):
        return _read_history if kind == "history" else _read_level
    rule = column.rule
    lost = missing_numbers(rule.missing)
    written = f" {rule.in_words()}" if kind == "numeric" and not rule.is_plain else ""
    allowed = f"a number from -1e300 to 1e300, a text that holds one{written}, true, false or null"
    allowed = allowed if kind == "numeric" else "a date such as 2026-01-31 or 2026-01-31T12:00:00, or null"

    def read_cell(value: Any) -> tuple[str, float]:
        if value is None:
            return "", math.nan
        if kind == "numeric" and (isinstance(value, bool) or is_number(value)):
            return "", math.nan if float(value) in lost and not isinstance(value, bool) else float(value)
        if not is_text(value) or len(value) > MAX_TEXT:
            return allowed, math.nan
        text = value.strip()
        if not text:
            return "", math.nan
        values, unread = rule.read([text])
        # A tolerant rule met such cells in training and reads them as missing.
        if unread[0] and not rule.tolerant:
            return allowed, math.nan
        number = float(values[0])
        return "", _ReadAsMissing(text) if math.isnan(number) else number

    return read_cell


def _read_level(value: Any) -> tuple[str, str | None]:
    """Read a cell as the text that names its level, as the encoder does."""
    fine = value is None or isinstance(value, bool) or is_number(value) or (is_text(value) and len(value) <= MAX_TEXT)
    return ("", as_text(value)) if fine else (f"a text of at most {MAX_TEXT} characters, a number, true, false or null", None)


def _read_history(value: Any) -> tuple[str, tuple[str, ...]]:
    """Read a cell as the ids in it, as the encoder does."""
    items = value if isinstance(value, list) else [value]
    fine = len(items) <= _MOST_IDS and not any(_read_level(item)[0] for item in items)
    return ("", history_ids(value)) if fine else (f"{HISTORY_FORM} (at most {_MOST_IDS}), or null", ())


_LEVEL: dict[str, Any] = {
    "type": ["string", "number", "boolean", "null"],
    "maxLength": MAX_TEXT,
    "minimum": -1e300,
    "maximum": 1e300,
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "numeric": {
        "anyOf": [
            {"type": ["number", "boolean", "null"], "minimum": -1e300, "maximum": 1e300},
            {
                "type": "string",
                "maxLength": MAX_TEXT,
                "format": "number",
                "description": "A number, written as in the training data.",
            },
        ]
    },
    "categorical": _LEVEL,
    "words": _LEVEL,
    "history": {
        **_LEVEL,
        "type": ["array", *_LEVEL["type"]],
        "items": _LEVEL,
        "maxItems": _MOST_IDS,
        "description": f"{HISTORY_FORM[0].upper()}{HISTORY_FORM[1:]}.",
    },
    "date": {
        "anyOf": [
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": r"^\s*$", "description": "An empty cell, as null."},
            {"type": "null"},
        ]
    },
}


def _tidy(number: float) -> float:
    """Round to four digits, for people."""
    return float(f"{number:.4g}")


def _typical_date(parts: Sequence[Sequence[Any]]) -> str:
    """Return the mean training date if the encoder kept it, else the beginning of 2020."""
    days = next((mean for part, mean, _ in parts if part == "elapsed"), None)
    date = _EPOCH + datetime.timedelta(days=float(days)) if days is not None else datetime.datetime(2020, 1, 1)
    return date.date().isoformat()

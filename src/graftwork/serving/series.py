"""Series of a request: lists of numbers, or rows with the run's series columns. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graftwork.core.optional import require
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.encoders.series_cells import SERIES_FORM, moments_of, numbers_of
from graftwork.data.names import short_list
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import Problem, hint
from graftwork.serving.reading import MAX_TEXT, RowReader

__all__ = ["SeriesReader"]

_MOST_STEPS = 100_000
"""Steps of one series; only the last ones count, and no more than these are read."""


class SeriesReader(RowReader):
    """Series as lists under ``series``; with a table's encoder, rows with the series columns.

    Args:
        encoder: The run's encoder.
        limits: Of requests.
    """

    encoder: SeriesEncoder

    def __init__(self, encoder: SeriesEncoder, limits: ServeLimits) -> None:
        super().__init__(encoder, limits)
        self._columns = (*encoder.columns, *([encoder.times] if encoder.times else []))
        # Several columns are one channel each; a single one may hold several.
        self._width = encoder.channels if len(encoder.columns) < 2 else 1
        self.keys = ("rows",) if self._columns else ("series",)

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return the cells of a row, or the list of a series, checked."""
        if key == "series":
            return self._cell(place, item, self._width, problems)
        if not isinstance(item, dict):
            problems.append(Problem(place, item, f"an object with the columns {short_list(self._columns)}"))
            return ()
        cells, before = [], len(problems)
        for name in self._columns:
            if name not in item:
                problems.append(Problem(f"{place}.{name}", None, f"a series or null.{hint(name, item, problems)}"))
                continue
            width = 0 if name == self.encoder.times else self._width
            cells.append(self._cell(f"{place}.{name}", item[name], width, problems))
        # Columns hold the same steps of a row, so they are equally long.
        # A cell that is missing or wrong has been named, and says nothing about its length.
        if len(problems) == before:
            self._check_lengths(place, cells, problems)
        return tuple(cells)

    def _cell(self, place: str, value: Any, width: int, problems: list[Problem]) -> Any:
        """Return the numbers of a cell, or its moments if ``width`` is 0."""
        if isinstance(value, list | str) and len(value) > (_MOST_STEPS if isinstance(value, list) else MAX_TEXT):
            problems.append(Problem(place, f"{len(value)} entries", f"a series of at most {_MOST_STEPS} steps"))
            return np.zeros((0, max(width, 1)))
        try:
            return numbers_of(value, channels=width) if width else moments_of(value)
        except (ValueError, OverflowError) as error:
            problems.append(Problem(place, value, f"{SERIES_FORM}: {error}"))
            return np.zeros((0, max(width, 1)))

    def _check_lengths(self, place: str, cells: Sequence[Any], problems: list[Problem]) -> None:
        sizes = [len(cell) for cell in cells]
        if len(set(sizes)) > 1:
            problems.append(Problem(place, sizes, f"equally many steps in {short_list(self._columns)}"))
        elif self.encoder.times and cells and (np.diff(cells[-1]) < 0).any():
            # The moments come last, after the series columns.
            problems.append(Problem(f"{place}.{self.encoder.times}", None, "moments that rise"))

    def blank(self) -> list[Any]:
        """Return a series of one unknown step."""
        step = np.full((1, self._width), np.nan)
        if not self._columns:
            return [step]
        return [tuple(np.zeros(1) if name == self.encoder.times else step for name in self._columns)]

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the arrays of the kind."""
        if not self._columns:
            return self.encoder.transform(list(rows))
        pandas = require("pandas", extra="serve", purpose="Serving a model of series")
        columns = {}
        for name, cells in zip(self._columns, zip(*rows, strict=True), strict=True):
            columns[name] = pandas.Series(list(cells), dtype=object)
        return self.encoder.transform(pandas.DataFrame(columns))

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of a series, or of a row of them."""
        number: dict[str, Any] = {"type": ["number", "null"], "minimum": -1e300, "maximum": 1e300}
        step = (
            number if self._width == 1 else {"type": "array", "items": number, "minItems": self._width, "maxItems": self._width}
        )
        series = {"type": ["array", "null"], "items": step, "maxItems": _MOST_STEPS, "description": f"{SERIES_FORM}."}
        if not self._columns:
            return {"series": series}
        moments = {"type": ["array", "null"], "items": {"type": ["number", "string"]}, "maxItems": _MOST_STEPS}
        properties = {name: moments if name == self.encoder.times else series for name in self._columns}
        return {"rows": {"type": "object", "required": list(properties), "properties": properties}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry per column, or one for the series."""
        shared = {"length": self.encoder.length, "channels": self._width}
        if not self._columns:
            return [{"name": "series", "type": "series", **shared}]
        return [{"name": name, "type": "moments" if name == self.encoder.times else "series", **shared} for name in self._columns]

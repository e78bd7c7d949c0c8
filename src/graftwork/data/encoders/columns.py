"""How single columns of a table become numbers: numeric, categorical and date columns, each with a JSON state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.names import short_list

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoricalColumn", "DateColumn", "NumericColumn", "as_text", "parse_dates", "text_codes", "to_numbers"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_NUM_KNOTS = 65
_HEAVY_TAIL_RATIO = 12.0
_CLIP = 10.0
_DAY = 86_400.0
_ALWAYS_KEPT = 256
"""So many levels are kept however seldom they are; the codes of tables with no more never depend on what follows."""
_ENOUGH_ROWS = 4
"""Training rows of a level beyond those: fewer say next to nothing about it."""


def as_text(value: Any) -> str | None:
    """Return a table cell as the text that names its class or level, or None if it is missing.

    Whole floats lose their ``.0``, so that ``3`` and ``3.0`` (a column with missing cells) are one class.
    """
    if type(value) is str:
        return value.strip() or None
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(float(value)) < 2**53:
        return str(int(value))
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' own missing values, named here to need no pandas
        return None
    return str(value).strip() or None


def text_codes(values: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column as level numbers ``[N]``, -1 where missing, and the levels in order of appearance, named by :func:`as_text`."""
    pandas = require("pandas", extra="data", purpose="Reading tables")
    try:
        codes, cells = pandas.factorize(values)
    except TypeError:  # lists cannot be hashed
        cells = values.tolist()
        codes = np.arange(len(cells))
    levels: dict[str, int] = {}
    numbers = np.full(len(cells) + 1, -1, dtype=np.int64)  # the last one serves code -1
    for index, cell in enumerate(cells.tolist() if hasattr(cells, "tolist") else cells):
        text = as_text(cell)
        if text is not None:
            numbers[index] = levels.setdefault(text, len(levels))
    return numbers[np.asarray(codes, dtype=np.int64)], list(levels)


def to_numbers(values: pd.Series) -> tuple[Floats, list[str]]:
    """Return a column as float64 with NaN for missing cells, and examples of present cells that are no numbers."""
    pandas = require("pandas", extra="data", purpose="Reading tables")
    if values.dtype.kind in "biuf":
        return np.asarray(values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)), []
    codes, levels = text_codes(values)
    numbers = np.append(
        pandas.to_numeric(pandas.Series(levels, dtype=object), errors="coerce").to_numpy(dtype=np.float64), np.nan
    )
    boolean = {"True": 1.0, "False": 0.0}
    if levels and set(levels) <= set(boolean):
        numbers[:-1] = [boolean[level] for level in levels]
    bad = [repr(level) for level, number in zip(levels, numbers, strict=False) if np.isnan(number) and level.lower() != "nan"]
    return numbers[codes], bad[:5]


def parse_dates(values: pd.Series) -> tuple[Floats, int]:
    """Return seconds since 1970 with NaN where there is no date, and how many present cells are no ISO 8601 date."""
    pandas = require("pandas", extra="data", purpose="Reading tables")
    if values.dtype.kind == "M" or isinstance(values.dtype, pandas.DatetimeTZDtype):
        dates = values
    else:
        dates = pandas.to_datetime(values.astype("string"), format="ISO8601", errors="coerce", utc=True)
    if getattr(dates.dt, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    known = dates.notna().to_numpy()
    seconds = np.full(len(values), np.nan)
    seconds[known] = dates[known].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1000.0
    return seconds, int((values.notna().to_numpy() & ~known).sum())


def _standardise(values: Floats, mean: float, std: float) -> Floats:
    scaled = np.clip((values - mean) / std, -_CLIP, _CLIP)
    return np.where(np.isnan(scaled), 0.0, scaled)


def _moments(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    deviation = float(known.std())
    return float(known.mean()), deviation if deviation > 1e-12 * max(1.0, float(np.abs(known).max())) else 1.0


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """Standardised on training rows; heavy tails go through quantiles of the normal distribution; missing and infinite cells are 0."""

    name: str
    mean: float
    std: float
    has_missing: bool
    """Whether an indicator column is added (1 where the cell is missing)."""
    knots: tuple[float, ...] = ()
    """Training quantiles for heavy-tailed columns, else empty."""

    @classmethod
    def fit(cls, name: str, values: pd.Series) -> Self:
        """Fit on the training rows."""
        numbers, _ = to_numbers(values)
        known = numbers[np.isfinite(numbers)]
        mean, std = _moments(numbers)
        knots: tuple[float, ...] = ()
        if len(known) >= 20:
            low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
            spread = max(high - low, 1e-12 * max(1.0, abs(float(middle))))
            if len(np.unique(known)) > 20 and max(known.max() - middle, middle - known.min()) / spread > _HEAVY_TAIL_RATIO:
                knots = tuple(float(item) for item in np.unique(np.quantile(known, np.linspace(0, 1, _NUM_KNOTS))))
        return cls(name, mean, std, bool((~np.isfinite(numbers)).any()), knots if len(knots) > 2 else ())

    def encode(self, values: pd.Series) -> list[Floats]:
        """Return one or two columns ``[N]``: the value and, if training rows had gaps, the indicator."""
        numbers, bad = to_numbers(values)
        if bad:
            raise DataError(
                f"Column {self.name!r} held numbers in training but now has {short_list(bad)}. Give numbers, or leave these cells empty."
            )
        missing = ~np.isfinite(numbers)
        numbers = np.where(missing, np.nan, numbers)
        if self.knots:
            scaled = np.where(missing, 0.0, np.interp(numbers, self.knots, _normal_scores(len(self.knots))))
        else:
            scaled = _standardise(numbers, self.mean, self.std)
        return [scaled, missing.astype(np.float64)] if self.has_missing else [scaled]

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "type": "numeric",
            "name": self.name,
            "mean": self.mean,
            "std": self.std,
            "has_missing": self.has_missing,
            "knots": list(self.knots),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        return cls(state["name"], state["mean"], state["std"], state["has_missing"], tuple(state["knots"]))


def _normal_scores(number: int) -> list[float]:
    normal = NormalDist()
    return [normal.inv_cdf((index + 0.5) / number) for index in range(number)]


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """Levels numbered from 1 by falling frequency in the training rows; missing, rare and unseen ones are 0."""

    name: str
    levels: tuple[str, ...]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Number the levels once: a server encodes a few rows at a time, and there may be tens of thousands of levels."""
        object.__setattr__(self, "_numbers", {level: number for number, level in enumerate(self.levels, 1)})

    @classmethod
    def fit(cls, name: str, values: pd.Series, *, max_levels: int = 50_000) -> Self:
        """Fit on the training rows.

        With 200 rows or more a level needs two of them. The 256 most frequent ones are kept; further ones, as logs have for their users and
        items, need four rows each, so that there are never more levels than a quarter of the rows.

        Args:
            name: The column.
            values: Its cells in the training rows.
            max_levels: Most levels, at least 1; they bound the embeddings of networks and the encoder's state.
        """
        codes, levels = text_codes(values)
        known = codes[codes >= 0]
        counts = dict(zip(levels, np.bincount(known, minlength=len(levels)).tolist(), strict=True))
        return cls.of_counts(name, counts, len(known), max_levels=max_levels)

    @classmethod
    def of_counts(cls, name: str, counts: Mapping[str, int], num_rows: int, *, max_levels: int = 50_000) -> Self:
        """Choose levels by the training rows ``counts`` that each is in, of ``num_rows`` that have one; see :meth:`fit`."""
        least = 2 if num_rows >= 200 else 1
        ordered = sorted((text for text, count in counts.items() if count >= least), key=lambda text: (-counts[text], text))
        further = [text for text in ordered[_ALWAYS_KEPT:] if counts[text] >= _ENOUGH_ROWS]
        return cls(name, tuple([*ordered[:_ALWAYS_KEPT], *further][:max_levels]))

    @property
    def cardinality(self) -> int:
        """Number of codes, with code 0."""
        return len(self.levels) + 1

    def encode(self, values: pd.Series) -> NDArray[np.int64]:
        """Return codes ``[N]``."""
        codes, levels = text_codes(values)
        return self.codes_of(levels)[codes]

    def codes_of(self, levels: Sequence[str]) -> NDArray[np.int64]:
        """Return the code of each level, and 0 for what is missing at the end, where number -1 finds it."""
        return np.array([*(self._numbers.get(level, 0) for level in levels), 0], dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"type": "categorical", "name": self.name, "levels": list(self.levels)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        return cls(state["name"], tuple(state["levels"]))


@dataclass(frozen=True, slots=True)
class DateColumn:
    """A date as year, month, day, weekday, hour and elapsed days, each standardised; parts that never change are left out."""

    name: str
    parts: tuple[tuple[str, float, float], ...]
    """``(part, mean, std)`` of each part kept."""
    has_missing: bool

    @classmethod
    def fit(cls, name: str, values: pd.Series) -> Self:
        """Fit on the training rows."""
        seconds, _ = parse_dates(values)
        parts = []
        for part, numbers in _date_parts(seconds).items():
            known = numbers[~np.isnan(numbers)]
            if len(known) and known.min() < known.max():
                parts.append((part, *_moments(numbers)))
        return cls(name, tuple(parts), bool(np.isnan(seconds).any()))

    def encode(self, values: pd.Series) -> list[Floats]:
        """Return one column ``[N]`` per part, and the indicator if training rows had gaps."""
        seconds, bad = parse_dates(values)
        if bad and bad > 0.5 * values.notna().sum():
            example = next(
                repr(item) for item, second in zip(values, seconds, strict=True) if np.isnan(second) and item is not None
            )
            raise DataError(
                f"Column {self.name!r} held dates in training but now has {example}. Write dates as 2026-01-31 or 2026-01-31T12:00:00."
            )
        numbers = _date_parts(seconds)
        encoded = [_standardise(numbers[part], mean, std) for part, mean, std in self.parts]
        return [*encoded, np.isnan(seconds).astype(np.float64)] if self.has_missing else encoded

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"type": "date", "name": self.name, "parts": [list(part) for part in self.parts], "has_missing": self.has_missing}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        return cls(state["name"], tuple((part[0], part[1], part[2]) for part in state["parts"]), state["has_missing"])


def _date_parts(seconds: Floats) -> dict[str, Floats]:
    known = ~np.isnan(seconds)
    stamps = np.where(known, seconds, 0.0).astype("datetime64[s]")
    days = stamps.astype("datetime64[D]")
    months = stamps.astype("datetime64[M]")
    years = stamps.astype("datetime64[Y]")
    numbers = {
        "year": years.astype(np.int64) + 1970,
        "month": (months - years.astype("datetime64[M]")).astype(np.int64) + 1,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
        "weekday": (days.astype(np.int64) + 3) % 7,
        "hour": (stamps - days.astype("datetime64[s]")).astype(np.int64) // 3600,
        "elapsed": stamps.astype(np.int64) / _DAY,
    }
    return {part: np.where(known, values.astype(np.float64), np.nan) for part, values in numbers.items()}

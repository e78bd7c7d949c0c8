"""How single columns of a table become numbers: numeric, categorical and date columns, each with a JSON state.

The state holds how cells are read (decided at training), so that the same cell is the same number in every file and every
request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.reading.cells import shown_cells
from graftwork.data.reading.column import Column, Naming, Parsed, as_column, level_name
from graftwork.data.reading.date_rule import DateRule
from graftwork.data.reading.number_rule import NumberRule, plain_floats

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoricalColumn", "DateColumn", "NumericColumn"]

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


def _standardise(values: Floats, mean: float, std: float) -> Floats:
    # Clipped, so that one wild cell of a request cannot drive a network; 0 is the mean of the training rows.
    scaled = np.clip((values - mean) / std, -_CLIP, _CLIP)
    return np.where(np.isnan(scaled), 0.0, scaled)


def _moments(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    deviation = float(known.std())
    # Relative to the values: a constant column has a rounding error for a deviation, and their unit may be tiny.
    return float(known.mean()), deviation if deviation > 1e-12 * float(np.abs(known).max()) else 1.0


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """Standardised on training rows; heavy tails go through quantiles of the normal distribution; missing and infinite cells are
    0."""

    name: str
    mean: float
    std: float
    has_missing: bool
    """Whether an indicator column is added (1 where the cell is missing)."""
    knots: tuple[float, ...] = ()
    """Training quantiles for heavy-tailed columns, else empty."""
    rule: NumberRule = field(default_factory=NumberRule)
    """How cells are read."""

    @classmethod
    def fit(cls, name: str, values: pd.Series | Column) -> Self:
        """Fit on the training rows."""
        column = as_column(values, name)
        rule = column.number_rule or NumberRule()
        numbers = column.numbers(rule).values
        known = numbers[np.isfinite(numbers)]
        mean, std = _moments(numbers)
        knots: tuple[float, ...] = ()
        # Fewer values have no tails to speak of.
        if len(known) >= 20:
            low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
            # Half of the values may be equal; the quartiles are then too, and nothing must be divided by 0.
            spread = max(high - low, 1e-12 * float(np.abs(known).max()))
            # 20 different values are levels in all but name, however far apart.
            if len(np.unique(known)) > 20 and max(known.max() - middle, middle - known.min()) / spread > _HEAVY_TAIL_RATIO:
                knots = tuple(float(item) for item in np.unique(np.quantile(known, np.linspace(0, 1, _NUM_KNOTS))))
        # Two knots would be a straight line, which the standardised value is already.
        return cls(name, mean, std, bool((~np.isfinite(numbers)).any()), knots if len(knots) > 2 else (), rule)

    def encode(self, values: pd.Series | Column) -> list[Floats]:
        """Return one or two columns ``[N]``: the value and, if training rows had gaps, the indicator.

        Raises:
            DataError: If cells are no numbers, and training had no such cells.
        """
        parsed = as_column(values, self.name).numbers(self.rule)
        _refuse_unread(self.name, "numbers", parsed, self.rule.tolerant, self.rule.in_words())
        numbers = parsed.values
        missing = ~np.isfinite(numbers)
        numbers = np.where(missing, np.nan, numbers)
        if self.knots:
            # np.interp keeps values beyond the first and last knot at the ends.
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
            "rule": self.rule.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        rule = NumberRule.from_state(state.get("rule", {}))
        mean, std, *knots = (float(value) for value in (state["mean"], state["std"], *state["knots"]))
        return cls(str(state["name"]), mean, std, bool(state["has_missing"]), tuple(knots), rule)


def _refuse_unread(name: str, what: str, parsed: Parsed, tolerant: bool, written: str) -> None:
    """Raise if cells cannot be read and the model has not been trained with such cells."""
    if not parsed.unread or tolerant:
        return
    count = sum(parsed.unread.values())
    cells = f"{shown_cells(list(parsed.unread), 5)}" + (f" ({count} cells in all)" if count > 1 else "")
    raise DataError(
        f"Column {name!r} held {what} in training but now has {cells}, which cannot be read as "
        f"{what}{written and f' {written}'}. Write them as in the training data, or leave these cells empty."
    )


def _normal_scores(number: int) -> list[float]:
    normal = NormalDist()
    # In the middle of each step: 0 and 1 have no finite score.
    return [normal.inv_cdf((index + 0.5) / number) for index in range(number)]


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """Levels numbered from 1 by falling frequency in the training rows; missing, rare and unseen ones are 0."""

    name: str
    levels: tuple[str, ...]
    naming: Naming = "words"
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Number the levels once: a server encodes a few rows at a time, and there may be tens of thousands of levels."""
        object.__setattr__(self, "_numbers", {level: number for number, level in enumerate(self.levels, 1)})

    @classmethod
    def fit(cls, name: str, values: pd.Series | Column, *, max_levels: int = 50_000) -> Self:
        """Fit on the training rows.

        With 200 rows or more a level needs two of them. The 256 most frequent ones are kept; further ones, as logs have for
        their users and items, need four rows each, so that there are never more levels than a quarter of the rows.

        Args:
            name: The column.
            values: Its cells in the training rows.
            max_levels: Most levels, at least 1; they bound the embeddings of networks and the encoder's state.
        """
        column = as_column(values, name)
        codes, levels = column.named(column.naming)
        known = codes[codes >= 0]
        counts = dict(zip(levels, np.bincount(known, minlength=len(levels)).tolist(), strict=True))
        return cls.of_counts(name, counts, len(known), max_levels=max_levels, naming=column.naming)

    @classmethod
    def of_counts(
        cls, name: str, counts: Mapping[str, int], num_rows: int, *, max_levels: int = 50_000, naming: Naming = "words"
    ) -> Self:
        """Choose levels by the training rows ``counts`` that each is in, of ``num_rows`` that have one; see :meth:`fit`."""
        least = 2 if num_rows >= 200 else 1
        # Equal counts by name, so that codes do not depend on the order of rows.
        ordered = sorted((text for text, count in counts.items() if count >= least), key=lambda text: (-counts[text], text))
        further = [text for text in ordered[_ALWAYS_KEPT:] if counts[text] >= _ENOUGH_ROWS]
        return cls(name, tuple([*ordered[:_ALWAYS_KEPT], *further][:max_levels]), naming)

    @property
    def cardinality(self) -> int:
        """Number of codes, with code 0."""
        return len(self.levels) + 1

    def encode(self, values: pd.Series | Column) -> NDArray[np.int64]:
        """Return codes ``[N]``."""
        column = as_column(values, self.name)
        # Level -1, a missing cell, picks the last entry.
        return self.codes_of(column.levels)[column.codes]

    def codes_of(self, levels: Sequence[str]) -> NDArray[np.int64]:
        """Return the code of each level as it stands in the cells, and 0 for what is missing at the end, where number -1 finds
        it."""
        return np.array([*(self._numbers.get(level_name(level, self.naming), 0) for level in levels), 0], dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"type": "categorical", "name": self.name, "levels": list(self.levels), "naming": self.naming}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`; states without ``naming`` are older, and their levels say how they were named."""
        levels = tuple(map(str, state["levels"]))
        return cls(str(state["name"]), levels, state.get("naming") or _old_naming(levels))


def _old_naming(levels: Sequence[str]) -> Naming:
    """Return how an encoder named its levels that did not say so: by value if all of them are numbers as programs write them."""
    numbers = plain_floats(levels)
    by_value = not np.isnan(numbers).any() and all(level_name(level, "numbers") == level for level in levels)
    return "numbers" if levels and by_value else "words"


@dataclass(frozen=True, slots=True)
class DateColumn:
    """A date as year, month, day, weekday, hour and elapsed days, each standardised. Parts that never change are left out, and parts that
    come again, such as months, where training rows do not span a whole round of them: up to there they say what elapsed days say, and
    in the next round something else."""

    name: str
    parts: tuple[tuple[str, float, float], ...]
    """``(part, mean, std)`` of each part kept."""
    has_missing: bool
    rule: DateRule = field(default_factory=DateRule)
    """How cells are read."""

    @classmethod
    def fit(cls, name: str, values: pd.Series | Column) -> Self:
        """Fit on the training rows."""
        column = as_column(values, name)
        rule = column.date_rule or DateRule()
        seconds = column.dates(rule).values
        parts = []
        dated = seconds[~np.isnan(seconds)]
        span = float(dated.max() - dated.min()) / _DAY if len(dated) else 0.0
        found = _date_parts(seconds)
        if not (found["day"] > 1).any():
            # Months, quarters and years are written as their first days, whose weekdays tell nothing.
            del found["weekday"]
        for part, numbers in found.items():
            known = numbers[~np.isnan(numbers)]
            # A part that never changes (the hour of dates without a time) tells nothing.
            if len(known) and known.min() < known.max() and span >= _WHOLE_ROUND.get(part, 0.0):
                parts.append((part, *_moments(numbers)))
        return cls(name, tuple(parts), bool(np.isnan(seconds).any()), rule)

    def encode(self, values: pd.Series | Column) -> list[Floats]:
        """Return one column ``[N]`` per part, and the indicator if training rows had gaps.

        Raises:
            DataError: If cells are no dates, and training had no such cells.
        """
        parsed = as_column(values, self.name).dates(self.rule)
        _refuse_unread(self.name, "dates", parsed, self.rule.tolerant, "such as 2026-01-31 or 2026-01-31T12:00:00")
        seconds = parsed.values
        numbers = _date_parts(seconds)
        encoded = [_standardise(numbers[part], mean, std) for part, mean, std in self.parts]
        return [*encoded, np.isnan(seconds).astype(np.float64)] if self.has_missing else encoded

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        parts = [list(part) for part in self.parts]
        return {"type": "date", "name": self.name, "parts": parts, "has_missing": self.has_missing, "rule": self.rule.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`; states without ``rule`` are older, and their dates could be unreadable in part."""
        parts = tuple((str(name), float(mean), float(std)) for name, mean, std in state["parts"])
        unknown = [name for name, _, _ in parts if name not in _DATE_PARTS]
        if unknown:
            raise ValueError(f"a date has the parts {', '.join(_DATE_PARTS)}; got {unknown[0]!r:.100}")
        return cls(
            str(state["name"]), parts, bool(state["has_missing"]), DateRule.from_state(state.get("rule", {"tolerant": True}))
        )


_DATE_PARTS = ("year", "month", "day", "weekday", "hour", "elapsed")
_WHOLE_ROUND = {"month": 330.0, "day": 27.0, "weekday": 6.0, "hour": 22 / 24}
"""Days that training rows span at least where a part has come round once, or nearly."""


def _date_parts(seconds: Floats) -> dict[str, Floats]:
    known = ~np.isnan(seconds)
    # NaN cannot become a date; 1970 stands in until the last line.
    stamps = np.where(known, seconds, 0.0).astype("datetime64[s]")
    days = stamps.astype("datetime64[D]")
    months = stamps.astype("datetime64[M]")
    years = stamps.astype("datetime64[Y]")
    numbers = {
        "year": years.astype(np.int64) + 1970,
        "month": (months - years.astype("datetime64[M]")).astype(np.int64) + 1,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
        # 1970-01-01 was a Thursday, 3 counted from Monday.
        "weekday": (days.astype(np.int64) + 3) % 7,
        "hour": (stamps - days.astype("datetime64[s]")).astype(np.int64) // 3600,
        "elapsed": stamps.astype(np.int64) / _DAY,
    }
    return {part: np.where(known, values.astype(np.float64), np.nan) for part, values in numbers.items()}

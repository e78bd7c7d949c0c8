"""A data set of series: values at equal intervals, its rate and season, and the group that stays on one side of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["SeriesRecord", "check_groups", "cut_windows", "down_sample"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesRecord:
    """One data set: ``T`` steps of ``C`` channels."""

    name: str
    values: Array
    """float64 ``[T, C]``, NaN where missing."""
    interval: float
    """Seconds between steps."""
    season: int
    """Steps of the season that is looked for first; 1 if there is none."""
    group: str
    """What it is a version of: records of one group (a series and what was made of it, or a family that was drawn alike) belong
    on one side of every split."""


def down_sample(record: SeriesRecord, factor: int, how: Literal["mean", "skip"]) -> SeriesRecord:
    """Return the record at a lower rate, in the same group: means of ``factor`` steps, or every ``factor``-th step.

    The steps at the beginning that fill no whole interval are left out. A mean over missing values is that of the others.

    Raises:
        ConfigError: If there are fewer than ``factor`` steps, or ``factor`` is below 1.
    """
    count = len(record.values) // factor if factor >= 1 else 0
    if count < 1:
        raise ConfigError(f"{record.name!r} has {len(record.values)} steps, which a factor of {factor} cannot reduce.")
    # Aligned with the end: the last step is the one that forecasts begin from.
    blocks = record.values[len(record.values) - count * factor :].reshape(count, factor, -1)
    if how == "skip":
        values = blocks[:, -1]
    else:
        known = ~np.isnan(blocks)
        total = np.where(known, blocks, 0.0).sum(axis=1)
        values = np.divide(total, known.sum(axis=1), out=np.full(total.shape, np.nan), where=known.any(axis=1))
    # A season that is no whole number of new steps is no season to look for.
    season = record.season // factor if record.season % factor == 0 else 1
    return SeriesRecord(
        name=f"{record.name}/{factor}",
        values=values,
        interval=record.interval * factor,
        season=max(season, 1),
        group=record.group,
    )


def cut_windows(values: Array, size: int, most: int) -> Array:
    """Return windows of ``size`` successive steps, ``[W, size, C]``: all of them, or ``most`` at even distances; none if the
    series is shorter."""
    count = len(values) - size + 1
    if count < 1:
        return np.zeros((0, size, values.shape[1]))
    # unique: rounding can give one start twice.
    starts = np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
    return values[starts[:, None] + np.arange(size)]


def check_groups(learned: Iterable[SeriesRecord], held_out: Sequence[SeriesRecord]) -> None:
    """Refuse records of one group on both sides.

    Raises:
        ConfigError: Naming the groups.
    """
    both = sorted({record.group for record in learned} & {record.group for record in held_out})
    if both:
        raise ConfigError(f"These groups are learned from and held out: {', '.join(both)}. Keep each on one side.")

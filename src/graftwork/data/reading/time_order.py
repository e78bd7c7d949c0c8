"""Splits in the order of time: models learn from the earliest rows, are chosen on later ones, and are tested on the latest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.reading.table import Table
from graftwork.data.splits import FRACTIONS, MIN_UNITS

__all__ = ["read_times", "split_by_time"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


def read_times(table: Table, name: str) -> tuple[Floats, bool]:
    """Return the times of the rows, float64 ``[N]``, and whether they are dates (seconds since 1970) or plain numbers.

    Args:
        table: The raw table.
        name: A column of dates or of numbers (years, steps).

    Raises:
        DataError: If the column holds neither, or a cell has no time.
    """
    column = table[name]
    is_dates = column.kind == "date"
    if not is_dates and column.number_rule is None:
        raise DataError(
            f"--time: the column {name!r} is read as {column.kind}, and rows are ordered by dates or numbers only. "
            "Write its cells as 2024-05-31, as 2024-05-31 17:30 or as numbers."
        )
    values = (column.dates() if is_dates else column.numbers()).values
    lost = np.flatnonzero(~np.isfinite(values))
    if len(lost):
        raise DataError(
            f"--time: {len(lost)} rows have no time in the column {name!r}, row {lost[0] + 1} among them. "
            "Fill these cells, or leave the rows out."
        )
    return values, is_dates


def split_by_time(
    times: Floats, labelled: NDArray[np.bool_], *, is_dates: bool, fractions: Mapping[str, float] = FRACTIONS
) -> tuple[dict[str, Rows], str]:
    """Cut the rows at two times. Rows of one time stay together.

    Args:
        times: Time of each row, ``[N]``, finite.
        labelled: Rows that have a label, ``[N]``; the shares are counted in these.
        is_dates: How times are written in the sentence.
        fractions: Shares of the parts, earliest first.

    Returns:
        ``{part: sorted row numbers}``, and from when to when each part is.

    Raises:
        DataError: If there are fewer than 10 labelled rows, or too few different times for all parts.
    """
    if int(labelled.sum()) < MIN_UNITS:
        raise DataError(
            f"There are {int(labelled.sum())} labelled rows; at least {MIN_UNITS} are needed for train, val and test."
        )
    moments, place = np.unique(times, return_inverse=True)
    rows_until = np.cumsum(np.bincount(place, weights=labelled, minlength=len(moments)))
    shares = np.cumsum(list(fractions.values())) / sum(fractions.values())
    # The cut whose share is nearest to what is asked for: a day of many rows may end before or after it.
    cuts = np.array([int(np.abs(rows_until / rows_until[-1] - share).argmin()) for share in shares])
    cuts[-1] = len(moments) - 1
    sizes = np.diff([0.0, *rows_until[cuts]])
    if len(np.unique(cuts)) < len(cuts) or not sizes.all():
        raise DataError(
            f"--time: the rows have {len(moments)} different times, too few (or too uneven) to be cut into "
            f"{', '.join(fractions)}. Take a finer column, or leave --time out."
        )
    part = np.searchsorted(cuts, place)  # cuts are the last moments of their parts
    splits = {name: np.flatnonzero(part == number) for number, name in enumerate(fractions)}
    spans = [
        f"{name} {_written(times[rows].min(), is_dates)} to {_written(times[rows].max(), is_dates)} ({len(rows):,} rows)"
        for name, rows in splits.items()
    ]
    return splits, ", ".join(spans)


def _written(time: float, is_dates: bool) -> str:
    if not is_dates:
        return f"{time:.15g}"
    moment = datetime.fromtimestamp(float(time), UTC)
    return f"{moment:%Y-%m-%d}" if time % 86_400 == 0 else f"{moment:%Y-%m-%d %H:%M}"

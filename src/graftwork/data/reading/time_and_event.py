"""From a time column and an event column to the target of a survival task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import short_list
from graftwork.data.reading.scales import positive_word
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.target_cells import TargetCells, TargetRequest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["survival_target"]


def survival_target(request: TargetRequest, frame: pd.DataFrame | Table) -> tuple[NDArray[np.float32], str]:
    """Return time and event as float32 ``[N, 2]``, NaN rows where one of them is missing, and a reason in words.

    Raises:
        DataError: If there are not two columns, a time is no number, negative or infinite, no event is seen, or the event column
            does not hold 0 and 1, true and false, or two words one of which is known to mean yes.
    """
    name = request.name
    if len(request.columns) != 2:
        raise DataError(
            f"Target {name!r} is to be survival, which reads two columns, a time and an event (1, or 0 if censored); got "
            f"{short_list(request.columns)}. Name them in this order: --targets '{name}=time+event'."
        )
    time_name, event_name = request.columns
    table = as_table(frame)
    parsed = table[time_name].numbers()
    time = parsed.values
    if parsed.unread:
        words = short_list(map(repr, parsed.unread), 3)
        raise DataError(f"Target {name!r}: times must be numbers, but column {time_name!r} holds {words}.")
    for fault, where in (("negative", time < 0), ("infinite", np.isinf(time))):
        if where.any():
            raise DataError(
                f"Target {name!r}: column {time_name!r} has {int(where.sum())} {fault} times, the first in row "
                f"{int(where.argmax()) + 1}. A time is the length from a start to the event or to the end of observation."
            )
    event, seen = _events(name, event_name, TargetCells.of(table[event_name]))
    missing = np.isnan(time) | np.isnan(event)
    target = np.stack([time, event], axis=1)
    target[missing] = np.nan
    if not (target[:, 1] == 1).any():
        raise DataError(
            f"Target {name!r}: no row has both a time and an event ({seen} in column {event_name!r}). There is nothing to "
            "learn from censored rows alone. Correct the column, or leave this target out."
        )
    censored = int((target[:, 1] == 0).sum())
    return target.astype(np.float32), f"time {time_name!r}, event {event_name!r} ({seen}); {censored} rows are censored"


def _events(name: str, column: str, cells: TargetCells) -> tuple[NDArray[np.float64], str]:
    """Return the event column as 1, 0 and NaN, and what stands for 1."""
    levels = cells.distinct
    positive = ""
    if set(levels) <= {"0", "1"}:
        positive = "1"
    elif set(levels) <= {"False", "True"}:
        positive = "True"
    elif len(levels) == 2:
        positive = positive_word(levels) or ""
    if not positive:
        raise DataError(
            f"Target {name!r}: the event column {column!r} must hold 1 (the event came) and 0 (censored), or words such as "
            f"yes and no; got {short_list(map(repr, levels), 4)}. Is it the second column of the target?"
        )
    # Code -1 finds the NaN at the end.
    is_event = np.array([*(float(level == positive) for level in cells.levels), np.nan])
    return is_event[cells.codes], f"{positive!r} means that it came"

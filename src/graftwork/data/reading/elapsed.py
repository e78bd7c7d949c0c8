"""Targets that are the time between two columns of dates: days in hospital, hours of a ride, age at a visit."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["elapsed_words"]

Floats = NDArray[np.float64]

_DAY = 86_400.0
_UNITS = {
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": _DAY,
    "weeks": 7 * _DAY,
    "months": 365.2425 * _DAY / 12,
    "years": 365.2425 * _DAY,
}
_UNEVEN = {"months": 2.0 / 30.0, "years": 2.0 / 365.0}
"""Units of which not all are equally long, and by how much whole ones by the calendar differ from their mean length."""
_MOST_DATES = 20
_FEWEST = 40
_AGREE = 0.99


def elapsed_words(dates: Mapping[str, Floats], target: Floats, step: float) -> str:
    """Return the target as the time from one date to another; empty if it is none.

    It counts if it holds in 99 % of the rows, up to a constant (both ends may count as days) and to a step of the target where
    that is far finer than its spread. Nearly all rows must hold both dates.

    Args:
        dates: Seconds since 1970 ``[N]`` of each column of dates, NaN where missing. The first 20 columns are looked at.
        target: Numbers ``[N]``, without NaN.
        step: The step on which the target's numbers lie, 0 if they are finer than 1e-6.
    """
    for first, second in combinations(list(dates)[:_MOST_DATES], 2):
        between = dates[second] - dates[first]
        known = ~np.isnan(between)
        if known.sum() < _FEWEST or known.mean() < _AGREE or between[known].std() == 0:
            continue
        begin, end, length = first, second, between[known]
        if np.corrcoef(length, target[known])[0, 1] < 0:
            begin, end, length = second, first, -length
        for unit, seconds in _UNITS.items():
            if _holds(length / seconds, target[known], step, _UNEVEN.get(unit, 0.0)):
                return f"the {unit} from {begin!r} to {end!r}"
    return ""


def _holds(length: Floats, target: Floats, step: float, uneven: float) -> bool:
    difference = target - length
    middle = 0.5 * float(np.quantile(difference, 0.01) + np.quantile(difference, 0.99))
    # Whole days between days agree exactly; cut or rounded numbers lie within a step. float32 keeps seven digits of a target.
    exact = 1e-5 * float(np.abs(target).max())
    steps = 0.51 * (max(step, exact) + uneven)
    tolerance = exact if steps >= 0.2 * target.std() else steps
    return bool(target.std() > 0 and (np.abs(difference - middle) <= tolerance).mean() >= _AGREE)

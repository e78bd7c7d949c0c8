"""What does a fit in one go cost on all rows? Fits on growing parts of them say it.

One part does not: much of a fit may cost the same on any number of rows (settings that are tried, a forest with bounded work), and
counted up from some hundred rows it would look a hundred times as slow as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftwork.data.samples import take_rows

if TYPE_CHECKING:
    from graftwork.data.suite import Suite
    from graftwork.interfaces.learner import Learner

__all__ = ["FIRST_ROWS", "GrownFit", "expected_seconds", "fit_on_growing_parts"]

FIRST_ROWS = 500
"""Training rows of the first part."""
GROWTH = 4
"""How many times larger the next part is."""
LEAST_SHARE = 0.1
"""Share of a fit that is taken to grow with the rows at least: two noisy measurements may say that more rows cost nothing."""
PATIENCE = 2.0
"""How many times the wanted seconds all parts together may take; the first two are always tried if the first one takes no longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrownFit:
    """The last of the fits, and what a fit on all rows is expected to take."""

    learner: Learner
    """Fitted on the largest part."""
    suite: Suite
    """That part."""
    seconds: float
    """Expected seconds of building and fitting on all rows; measured if the largest part is the whole suite."""


def expected_seconds(measured: list[tuple[int, float]], rows: int) -> float:
    """Return the seconds that a fit on ``rows`` rows is expected to take.

    The last two measurements are joined by a line, which is no flatter than :data:`LEAST_SHARE` of proportional. A single one is
    counted up in proportion.

    Args:
        measured: ``(rows, seconds)`` of fits on ever more rows, at least one.
        rows: At least the rows of the last fit.
    """
    last_rows, last = measured[-1]
    share = last / last_rows
    if len(measured) == 1:
        return share * rows
    before_rows, before = measured[-2]
    slope = max((last - before) / (last_rows - before_rows), LEAST_SHARE * share)
    return last + slope * (rows - last_rows)


def fit_on_growing_parts(
    build: Callable[[Suite], Learner],
    suite: Suite,
    *,
    seconds: float,
    known: tuple[int, float] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> GrownFit:
    """Fit on 500 training rows, on four times as many, and so on, while the next fit is expected to end in time.

    Args:
        build: Returns an untrained learner of a suite.
        suite: All rows.
        seconds: Seconds after which a small part has to do; all fits together take at most about twice as many, but for the second,
            which is made whenever the first one was short enough.
        known: ``(rows, seconds)`` of a fit that was made before; None if there was none. Parts of fewer rows, but the first, are then
            left out.
        is_stopped: Whether no further fit shall begin.

    Raises:
        GraftworkError: What the learner raises on a part with which it can do nothing.
    """
    total = len(suite.splits["train"])
    measured: list[tuple[int, float]] = []
    wanted, spent = FIRST_ROWS, 0.0
    while True:
        # Less than a further doubling is no part: all rows are more certain. A third of the rows of a part are held out.
        is_whole = 2 * wanted >= total
        part = suite if is_whole else take_rows(suite, wanted * 4 // 3)
        rows, started = len(part.splits["train"]), time.perf_counter()
        learner = build(part)
        learner.train(1)
        taken = time.perf_counter() - started
        spent += taken
        measured.append((rows, taken))
        if is_whole:
            return GrownFit(learner=learner, suite=part, seconds=taken)
        if known is not None and rows < known[0] < total:
            measured.append(known)
        known = None
        wanted = GROWTH * measured[-1][0]
        following = total if 2 * wanted >= total else wanted
        # One fit says nothing of what grows with the rows.
        is_in_time = (
            spent <= PATIENCE * seconds
            if len(measured) == 1
            else spent + expected_seconds(measured, following) <= PATIENCE * seconds
        )
        if is_stopped() or not is_in_time:
            return GrownFit(learner=learner, suite=part, seconds=expected_seconds(measured, total))

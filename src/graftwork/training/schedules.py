"""Learning rate schedules: a factor in (0, 1] that depends on step and horizon only."""

from __future__ import annotations

import math

from graftwork.training.config import ScheduleName

__all__ = ["schedule_factor"]

FLOOR = 0.01
"""Where the decaying schedules end, as a share of the highest rate: the last steps still learn something."""


def schedule_factor(schedule: ScheduleName, step: int, max_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor on the learning rate for ``step`` (0 is the first).

    Args:
        schedule: ``constant``; ``cosine`` or ``linear`` decay from the end of the warm-up to the horizon; ``wsd`` stays at 1 and
            decays linearly over the last third.
        step: Step about to be made; beyond the horizon the last value holds.
        max_steps: Horizon.
        warmup_steps: Length of the linear warm-up; at most a tenth of the horizon is used.

    Example:
        >>> [round(schedule_factor("linear", step, 100), 3) for step in (0, 50, 100)]
        [1.0, 0.505, 0.01]
    """
    warmup = min(warmup_steps, max_steps // 10)
    if step < warmup:
        # Never 0: the first step learns, too.
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    start = warmup if schedule != "wsd" else max(warmup, max_steps - max_steps // 3)
    progress = min(max(step - start, 0) / max(max_steps - start, 1), 1.0)
    fall = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0 - progress
    return FLOOR + (1.0 - FLOOR) * fall

"""The two sides of an inequality as text: ``"arm.metric"``, or ``"arm|arm.metric"`` for the lowest value of several arms."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["arms_of", "lowest_of"]

_OR = "|"


def lowest_of(arms: Sequence[str], metric: str) -> str:
    """Return the side of an inequality that means the lowest value of several arms.

    Example:
        >>> lowest_of(("nash", "nash-solver"), "step_ms")
        'nash|nash-solver.step_ms'
    """
    return f"{_OR.join(arms)}.{metric}"


def arms_of(side: str) -> tuple[tuple[str, ...], str]:
    """Return the arms of a side, and the metric.

    Example:
        >>> arms_of("nash|nash-solver.step_ms")
        (('nash', 'nash-solver'), 'step_ms')
    """
    arms, _, metric = side.partition(".")
    return tuple(arms.split(_OR)), metric

"""Costs beside the fastest implementation of a baseline that there is.

A method that is quicker than a slow implementation of its rival is not quicker than the rival. So a recipe runs every
implementation of a baseline that it can get as an arm of its own, and compares with whichever is fastest, seed by seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from graftwork.claims.experiment import Inequality
from graftwork.claims.sides import lowest_of

__all__ = ["cheaper_than_fastest"]


def cheaper_than_fastest(
    name: str,
    arm: str,
    implementations: Sequence[str],
    *,
    metric: str = "step_ms",
    factor: float = 1.0,
    unit: str = "ms",
    primary: bool = True,
) -> Inequality:
    """Return the claim that an arm costs at most ``factor`` times what the fastest implementation of a baseline costs.

    Args:
        name: The claim in words.
        arm: The arm that is claimed to be cheap.
        implementations: Arms that are implementations of one baseline.
        metric: What all of them measure; lower is better.
        factor: How often the baseline's cost is allowed.
        unit: Unit of the metric.
        primary: Whether the claim makes the verdict.
    """
    # Lower is better, so the claimed side stands on the right.
    return Inequality(
        name,
        lowest_of(implementations, metric),
        f"{arm}.{metric}",
        demand="at least",
        left_factor=factor,
        unit=unit,
        primary=primary,
    )

"""Smooth clipping: numbers near 0 stay as they are, and outliers tend to a limit, so that they pull little on sums and distances.

As in RealMLP (Holzmüller et al., "Better by default", NeurIPS 2024, https://arxiv.org/abs/2407.04491).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["smooth_clip", "smooth_clip_in_graph"]

_LIMIT = 3.0
"""In standard deviations, or whatever unit the numbers have."""


def smooth_clip(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers of any shape within (-3, 3).

    Example:
        >>> smooth_clip(np.array([0.0, 4.0, -4.0]))
        array([ 0. ,  2.4, -2.4])
    """
    clipped: NDArray[np.float64] = numbers / np.sqrt(1.0 + np.square(numbers / _LIMIT))
    return clipped


def smooth_clip_in_graph(graph: GraphBuilder, numbers: str) -> str:
    """Add :func:`smooth_clip` of a double value to a graph; return the name of its output."""
    share = graph.add("Div", numbers, np.array(_LIMIT))
    bend = graph.add("Sqrt", graph.add("Add", graph.add("Mul", share, share), np.array(1.0)))
    return graph.add("Div", numbers, bend)

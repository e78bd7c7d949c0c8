"""Squared distances between rows, in NumPy and as a graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["graph_square_distances", "square_distances"]

Floats = NDArray[np.float64]


def square_distances(a: Floats, b: Floats) -> Floats:
    """Return squared distances ``[n, m]`` between rows ``[n, D]`` and ``[m, D]``."""
    found = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * (a @ b.T)
    return np.maximum(found, 0.0)  # rounding makes small ones negative


def graph_square_distances(graph: GraphBuilder, a: str, b: Floats) -> str:
    """Add :func:`square_distances` to a graph, between a value ``[n, D]`` of doubles and constant rows."""
    own = graph.add("ReduceSum", graph.add("Mul", a, a), np.array([1], dtype=np.int64), keepdims=1)
    products = graph.add("MatMul", a, np.ascontiguousarray(-2.0 * b.T))
    return graph.add("Relu", graph.add("Add", graph.add("Add", own, np.square(b).sum(axis=1)[None]), products))

"""The columns of a table beside a text, as linear models see them: numbers, smoothly clipped, and an indicator for each common
level of a category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.smooth_clip import smooth_clip, smooth_clip_in_graph
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["TableColumns", "table_arrays"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
MOST_INDICATORS = 1000
"""The most common levels get an indicator; the others of a category are one level without."""
_LEAST_ROWS = 3


def table_arrays(suite: Suite) -> dict[str, str]:
    """Return the names that the arrays ``numeric`` and ``categorical`` have in a suite, of those that it has."""
    for spec in suite.input_specs.values():
        if spec.kind == "table":
            names = spec.arrays or {name: name for name in ("numeric", "categorical") if name in suite.inputs}
            return {own: name for own, name in names.items() if suite.inputs[name].shape[1] > 0}
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class TableColumns:
    """Columns: all numbers, then indicators; no columns at all where a suite has no table."""

    arrays: Mapping[str, str]
    """Names in the suite, see :func:`table_arrays`."""
    columns: Ints
    """Categorical column of each indicator."""
    levels: Ints
    """Code that each indicator stands for."""

    @classmethod
    def of_suite(cls, suite: Suite) -> Self:
        """Choose the indicators from the training rows: levels that three of them have."""
        arrays, found = table_arrays(suite), []
        if "categorical" in arrays:
            codes = np.asarray(suite.inputs[arrays["categorical"]][suite.splits["train"]])
            for column in range(codes.shape[1]):
                counts = np.bincount(codes[:, column])
                found += [(-int(counts[level]), column, int(level)) for level in np.flatnonzero(counts >= _LEAST_ROWS)]
        kept = sorted(entry[1:] for entry in sorted(found)[:MOST_INDICATORS])
        pairs = np.array(kept, dtype=np.int64).reshape(-1, 2)
        return cls(arrays, pairs[:, 0], pairs[:, 1])

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> NDArray[np.float64]:
        """Return ``[n, width]``."""
        parts: list[Array] = [np.zeros((len(rows), 0))]
        if "numeric" in self.arrays:
            numbers = np.asarray(inputs[self.arrays["numeric"]][rows], dtype=np.float64)
            parts.append(smooth_clip(numbers))
        if len(self.columns):
            codes = np.asarray(inputs[self.arrays["categorical"]][rows])
            parts.append((codes[:, self.columns] == self.levels).astype(np.float64))
        return np.concatenate(parts, axis=1)

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of the double value ``[n, width]``, empty if there are none."""
        parts = []
        if "numeric" in self.arrays:
            parts.append(smooth_clip_in_graph(graph, graph.cast(self.arrays["numeric"], np.float64)))
        if len(self.columns):
            cells = graph.add("Gather", self.arrays["categorical"], self.columns, axis=1)
            parts.append(graph.cast(graph.add("Equal", cells, self.levels[None]), np.float64))
        return graph.concat(parts) if parts else ""

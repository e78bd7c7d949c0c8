"""What trees see of a suite's table: numbers as they are, and an indicator for each common level of a category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["TableDesign", "cardinalities", "num_numeric"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
MOST_LEVELS = 100
"""There is an indicator for each level of categories with no more levels than this; codes of others stay numbers, which are
ordered by frequency, so that thresholds part common levels from rare ones."""


@dataclass(frozen=True, slots=True, eq=False)
class TableDesign:
    """Columns: all numbers, then codes as numbers, then indicators."""

    num_numeric: int
    codes: Ints
    """Categorical columns whose codes are numbers."""
    columns: Ints
    """Categorical column of each indicator."""
    levels: Ints
    """Code that each indicator stands for."""

    @classmethod
    def of_suite(cls, suite: Suite) -> Self:
        """Return the design of a suite.

        Raises:
            DataError: If the suite has no column.
        """
        sizes = cardinalities(suite)
        small = [column for column, size in enumerate(sizes) if size <= MOST_LEVELS]
        large = [column for column, size in enumerate(sizes) if size > MOST_LEVELS]
        found = cls(
            num_numeric(suite),
            np.array(large, dtype=np.int64),
            np.repeat(np.array(small, dtype=np.int64), [sizes[column] for column in small]),
            np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(sizes[column]) for column in small)]),
        )
        if not found.width:
            raise DataError(f"The suite {suite.name!r} has no feature column that differs between training rows.")
        return found

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.num_numeric + len(self.codes) + len(self.columns)

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> NDArray[np.float32]:
        """Return float32 ``[n, width]``."""
        found = np.empty((len(rows), self.width), dtype=np.float32)
        if self.num_numeric:
            found[:, : self.num_numeric] = inputs["numeric"][rows]
        if self.width > self.num_numeric:
            codes = np.asarray(inputs["categorical"][rows])
            middle = self.num_numeric + len(self.codes)
            found[:, self.num_numeric : middle] = codes[:, self.codes]
            found[:, middle:] = codes[:, self.columns] == self.levels
        return found

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of float ``[n, width]``."""
        parts = ["numeric"] if self.num_numeric else []
        if len(self.codes):
            parts.append(graph.cast(graph.add("Gather", "categorical", self.codes, axis=1), np.float32))
        if len(self.columns):
            cells = graph.add("Gather", "categorical", self.columns, axis=1)
            parts.append(graph.cast(graph.add("Equal", cells, self.levels[None]), np.float32))
        return graph.concat(parts)


def num_numeric(suite: Suite) -> int:
    """Return the number of numeric columns."""
    return int(suite.inputs["numeric"].shape[1]) if "numeric" in suite.inputs else 0


def cardinalities(suite: Suite) -> list[int]:
    """Return the number of codes of each categorical column."""
    width = suite.inputs["categorical"].shape[1] if "categorical" in suite.inputs else 0
    if not width:
        return []
    sizes = list(suite.only_input.sizes.get("cardinalities", ()))[:width]
    if len(sizes) == width:
        return [int(size) for size in sizes]
    top = suite.inputs["categorical"][suite.splits["train"]].max(axis=0, initial=0)
    return [int(size) + 1 for size in top]

"""What models of sums and distances see of a suite's table: standardised numbers, the same numbers bent so that outliers pull
little, and an indicator for each common level of a category.

Bent numbers have their median at 0 and half of the training rows within a range of 1; then they are clipped smoothly, with limits
of -3 and 3, as in RealMLP (Holzmüller et al., "Better by default", NeurIPS 2024, https://arxiv.org/abs/2407.04491).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.suite import Suite
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.smooth_clip import smooth_clip, smooth_clip_in_graph
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.tabular.table_design import cardinalities, num_numeric

__all__ = ["SmoothDesign"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_NUMBERS = 1000
"""Most numeric columns: of more those are kept that correlate most with a target."""
MOST_INDICATORS = 1000
"""Most indicators: the most common levels get them, all others of a category are one level without indicator."""
_RARE = 3
"""Training rows that a level needs for an indicator."""
_SAMPLE = 5000
"""Rows from which statistics are taken."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothDesign:
    """Columns: standardised numbers, bent numbers, indicators."""

    numbers: Ints
    """Numeric columns that are used."""
    center: Floats
    scale: Floats
    middle: Floats
    spread: Floats
    columns: Ints
    """Categorical column of each indicator."""
    levels: Ints
    """Code that each indicator stands for."""

    @classmethod
    def of_suite(cls, suite: Suite, blocks: Sequence[LabelBlock]) -> Self:
        """Return the design of a suite; all statistics are those of training rows.

        Args:
            suite: A table suite.
            blocks: What is to be predicted.

        Raises:
            DataError: If the suite has no column that can be used.
        """
        rows = suite.splits["train"]
        rows = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]
        values = np.zeros((len(rows), 0))
        if num_numeric(suite):
            values = np.asarray(suite.inputs["numeric"][rows], dtype=np.float64)
        numbers = _screened(values, rows, blocks)
        values = values[:, numbers]
        center, scale = values.mean(axis=0), _positive(values.std(axis=0))
        middle, spread = _robust(values) if len(values) else (center, scale)
        pairs = _indicators(suite)
        found = cls(numbers, center, scale, middle, spread, pairs[:, 0], pairs[:, 1])
        if not found.width:
            raise DataError(f"The suite {suite.name!r} has no feature column that differs between training rows.")
        return found

    @property
    def width(self) -> int:
        """Number of columns."""
        return 2 * len(self.numbers) + len(self.columns)

    @property
    def plain(self) -> Ints:
        """Columns of standardised numbers and indicators."""
        count = len(self.numbers)
        return np.concatenate([np.arange(count), np.arange(2 * count, self.width)])

    @property
    def bent(self) -> Ints:
        """Columns of bent numbers and indicators."""
        return np.arange(len(self.numbers), self.width)

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> Floats:
        """Return ``[n, width]``."""
        found, count = np.empty((len(rows), self.width)), len(self.numbers)
        if count:
            numbers = np.asarray(inputs["numeric"][rows], dtype=np.float64)[:, self.numbers]
            found[:, :count] = (numbers - self.center) / self.scale
            robust = (numbers - self.middle) / self.spread
            found[:, count : 2 * count] = smooth_clip(robust)
        if len(self.columns):
            found[:, 2 * count :] = np.asarray(inputs["categorical"][rows])[:, self.columns] == self.levels
        return found

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of double ``[n, width]``."""
        parts = []
        if len(self.numbers):
            numbers = graph.cast(graph.add("Gather", "numeric", self.numbers, axis=1), np.float64)
            parts.append(graph.add("Div", graph.add("Sub", numbers, self.center), self.scale))
            robust = graph.add("Div", graph.add("Sub", numbers, self.middle), self.spread)
            parts.append(smooth_clip_in_graph(graph, robust))
        if len(self.columns):
            cells = graph.add("Gather", "categorical", self.columns, axis=1)
            parts.append(graph.cast(graph.add("Equal", cells, self.levels[None]), np.float64))
        return graph.concat(parts)


def _positive(values: Floats) -> Floats:
    return np.where(values > 1e-9, values, 1.0)


def _robust(values: Floats) -> tuple[Floats, Floats]:
    """Return median and quartile range; half of the whole range where the quartiles are equal."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    spread = high - low
    return middle, _positive(np.where(spread > 1e-9, spread, 0.5 * (values.max(axis=0) - values.min(axis=0))))


def _screened(values: Floats, rows: Ints, blocks: Sequence[LabelBlock]) -> Ints:
    """Return the numeric columns that change, at most 1,000: those whose largest correlation with a target is largest."""
    scale = values.std(axis=0)
    kept = np.flatnonzero(scale > 1e-9)
    if len(kept) <= MOST_NUMBERS:
        return kept
    best = np.zeros(len(kept))
    scaled = (values[:, kept] - values[:, kept].mean(axis=0)) / scale[kept]
    for block in blocks:
        known = block.known[rows]
        if not known.any():
            continue
        targets = block.targets(rows[known])
        targets = (targets - targets.mean(axis=0)) / _positive(targets.std(axis=0))
        # Few labels correlate with something by chance, so that correlations count by the root of their number.
        found = np.abs(scaled[known].T @ targets).max(axis=1) / np.sqrt(known.sum())
        best = np.maximum(best, found)
    order = np.argsort(-best, kind="stable")[:MOST_NUMBERS]
    return np.sort(kept[order])


def _indicators(suite: Suite) -> Ints:
    """Return pairs of category and level, ``[I, 2]``."""
    found: list[tuple[int, int, int]] = []
    train = suite.splits["train"]
    for column in range(len(cardinalities(suite))):
        counts = np.bincount(suite.inputs["categorical"][train, column])
        # A level that all rows have says nothing.
        common = np.flatnonzero((counts >= _RARE) & (counts < len(train)))
        found += [(-int(counts[level]), column, int(level)) for level in common]
    kept = sorted(entry[1:] for entry in sorted(found)[:MOST_INDICATORS])
    return np.array(kept, dtype=np.int64).reshape(-1, 2)

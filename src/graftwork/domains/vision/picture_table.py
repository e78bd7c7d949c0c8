"""Pictures as rows of a table: brightness and colour by place, their spread, histograms, and edges by direction and place.

Edges by direction are those of histograms of oriented gradients (Dalal and Triggs, "Histograms of oriented gradients for human
detection", CVPR 2005), without normalisation between neighbours.

All but the spreads are sums of whole numbers, so that a graph computes the same bits: trees, whose answers jump at their thresholds,
need that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.input_kinds import join_kinds
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["PictureTable"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_GRID = 16
"""Cells of brightness along a side, of grey pictures; of coloured ones there are :data:`_COLOURED_GRID`."""
_COLOURED_GRID, _COLOUR_GRID, _EDGE_GRID = 12, 6, 4
_WORKING = 48
"""Pictures are summed over squares of pixels while they are at least twice as large as this, before edges are looked for."""
_LEVELS = (16, 48, 80, 112, 144, 176, 208, 240)
_DIRECTIONS = ((1, 0), (2, 1), (1, 1), (1, 2), (0, 1), (-1, 2), (-1, 1), (-2, 1))
"""Half of the directions of edges, in whole numbers; the other half are their opposites."""
_SAMPLE = 200
_PIXELS = 4_000_000
"""Pixels that are worked on at a time."""


@dataclass(frozen=True, slots=True)
class PictureTable:
    """Columns of one input of square pictures, uint8 ``[N, S, S, 3]``."""

    array: str
    """Input with the pictures."""
    size: int
    """``S``."""
    coloured: bool
    """Whether the three channels differ anywhere in a sample of the training rows."""

    @classmethod
    def of_suite(cls, suite: Suite, what: str) -> Self:
        """Return the columns of a suite with pictures.

        Args:
            suite: It has one input of pictures.
            what: What needs them, for the message.

        Raises:
            DataError: If the suite has no pictures, or several inputs of them.
        """
        specs = [spec for spec in suite.input_specs.values() if spec.kind == "image"]
        if len(specs) != 1:
            raise DataError(
                f"{what} needs one picture a row; the suite {suite.name!r} has the inputs: {join_kinds(suite.kinds)}."
            )
        array = specs[0].arrays.get("image", "image")
        rows = suite.splits["train"]
        sample = np.asarray(suite.inputs[array][rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]])
        coloured = bool((sample[..., :1] != sample[..., 1:]).any())
        return cls(array, int(suite.inputs[array].shape[1]), coloured)

    @property
    def width(self) -> int:
        """Number of columns."""
        channels = 3 if self.coloured else 1
        places = self._cells(_COLOURED_GRID if self.coloured else _GRID) ** 2
        colours = 3 * self._cells(_COLOUR_GRID) ** 2 if self.coloured else 0
        edges = 2 * len(_DIRECTIONS) * self._edge_cells**2
        return places + colours + edges + channels * (2 + len(_LEVELS))

    @property
    def _factor(self) -> int:
        return max(1, self.size // _WORKING)

    @property
    def _working(self) -> int:
        return self.size // self._factor

    @property
    def _edge_cells(self) -> int:
        return max(0, min(_EDGE_GRID, self._working - 2))

    def _cells(self, most: int) -> int:
        return min(most, self.size)

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> NDArray[np.float32]:
        """Return ``[n, width]``."""
        pictures = inputs[self.array]
        found = np.empty((len(rows), self.width), dtype=np.float32)
        step = max(1, _PIXELS // (3 * self.size**2))
        for start in range(0, len(rows), step):
            part = np.asarray(pictures[rows[start : start + step]]).astype(np.float64)
            found[start : start + step] = np.concatenate(self._parts(part), axis=1)
        return found

    def _parts(self, pictures: Floats) -> list[Floats]:
        light = pictures.sum(axis=3)
        parts = [_summed(light, self._cells(_COLOURED_GRID if self.coloured else _GRID))]
        channels = np.moveaxis(pictures, 3, 1) if self.coloured else pictures[..., 0][:, None]
        if self.coloured:
            parts.append(_summed(channels, self._cells(_COLOUR_GRID)))
        if self._edge_cells:
            parts += self._edges(light)
        total, squares = channels.sum(axis=(2, 3)), np.square(channels).sum(axis=(2, 3))
        # Whole numbers below 2^53 up to the root, which both sides round in the same way.
        spread = np.sqrt(squares * self.size**2 - np.square(total))
        parts += [total, spread]
        parts += [(channels > level).sum(axis=(2, 3)).astype(np.float64) for level in _LEVELS]
        return parts

    def _edges(self, light: Floats) -> list[Floats]:
        # Pixels at the border that fill no square are left out: smaller squares would look like edges.
        whole = self._factor * self._working
        small = _summed(light[:, :whole, :whole], self._working, flat=False)
        across = small[:, 1:-1, 2:] - small[:, 1:-1, :-2]
        down = small[:, 2:, 1:-1] - small[:, :-2, 1:-1]
        slopes = [x * across + y * down for x, y in _DIRECTIONS]
        return [_summed(np.maximum(rising, 0.0), self._edge_cells) for slope in slopes for rising in (slope, -slope)]

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of float ``[n, width]``."""
        pictures = graph.cast(self.array, np.float64)
        light = graph.add("ReduceSum", pictures, np.array([3]), keepdims=0)
        parts = [_summed_in_graph(graph, light, self._cells(_COLOURED_GRID if self.coloured else _GRID), self.size)]
        channels = graph.add("Transpose", pictures, perm=[0, 3, 1, 2])
        if self.coloured:
            parts.append(_summed_in_graph(graph, channels, self._cells(_COLOUR_GRID), self.size))
        else:
            channels = graph.add("Slice", channels, np.array([0]), np.array([1]), np.array([1]))
        if self._edge_cells:
            parts += self._edges_in_graph(graph, light)
        total = graph.add("ReduceSum", channels, np.array([2, 3]), keepdims=0)
        squares = graph.add("ReduceSum", graph.add("Mul", channels, channels), np.array([2, 3]), keepdims=0)
        variance = graph.add("Sub", graph.add("Mul", squares, np.array(float(self.size**2))), graph.add("Mul", total, total))
        parts += [total, graph.add("Sqrt", variance)]
        for level in _LEVELS:
            above = graph.cast(graph.add("Greater", channels, np.array(float(level))), np.float64)
            parts.append(graph.add("ReduceSum", above, np.array([2, 3]), keepdims=0))
        return graph.cast(graph.concat(parts), np.float32)

    def _edges_in_graph(self, graph: GraphBuilder, light: str) -> list[str]:
        whole, inner = self._factor * self._working, self._working - 2
        small = _summed_in_graph(graph, _cut(graph, light, (0, 0), whole), self._working, whole, flat=False)
        across = graph.add("Sub", _cut(graph, small, (1, 2), inner), _cut(graph, small, (1, 0), inner))
        down = graph.add("Sub", _cut(graph, small, (2, 1), inner), _cut(graph, small, (0, 1), inner))
        parts = []
        for x, y in _DIRECTIONS:
            slope = graph.add("Add", graph.add("Mul", across, np.array(float(x))), graph.add("Mul", down, np.array(float(y))))
            for rising in (slope, graph.add("Neg", slope)):
                kept = graph.add("Max", rising, np.array(0.0))
                parts.append(_summed_in_graph(graph, kept, self._edge_cells, inner))
        return parts


def _pool(size: int, cells: int) -> Floats:
    """Return zeros and ones, ``[cells, size]``: which of ``size`` pixels in a row are in which cell; cells differ by a pixel at most."""
    return (np.arange(size) * cells // size == np.arange(cells)[:, None]).astype(np.float64)


def _summed(values: Floats, cells: int, *, flat: bool = True) -> Floats:
    """Return sums over ``cells x cells`` cells of the last two dimensions, ``[n, ...]`` flattened."""
    size = values.shape[-1]
    starts = np.searchsorted(np.arange(size) * cells // size, np.arange(cells))
    summed = np.add.reduceat(np.add.reduceat(values, starts, axis=-2), starts, axis=-1)
    return summed.reshape(len(values), -1) if flat else summed


def _summed_in_graph(graph: GraphBuilder, values: str, cells: int, size: int, *, flat: bool = True) -> str:
    pool = _pool(size, cells)
    summed = graph.add("MatMul", graph.add("MatMul", pool, values), np.ascontiguousarray(pool.T))
    return graph.add("Flatten", summed, axis=1) if flat else summed


def _cut(graph: GraphBuilder, values: str, start: tuple[int, int], length: int) -> str:
    first = np.array(start)
    return graph.add("Slice", values, first, first + length, np.array([1, 2]))

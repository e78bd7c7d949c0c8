"""How a text is made, whatever it is about: how long it is, and how many digits, letters, numbers and signs it has.

Counted from token numbers, so that a graph that reads tokens counts the same. All counts are whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.smooth_clip import smooth_clip, smooth_clip_in_graph
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["TextCounts", "TextShape"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_MOST_CELLS = 4_000_000
"""Token numbers times counts that are looked at at a time."""


def _counted(token: str) -> tuple[int, ...]:
    """Return what one token adds: digits, letters, whether it is a number, whether it is made of signs."""
    digits, letters = sum(map(str.isdigit, token)), sum(map(str.isalpha, token))
    return digits, letters, int(digits == len(token)), int(digits + letters == 0)


@dataclass(frozen=True, slots=True, eq=False)
class TextCounts:
    """Columns: tokens, digits, letters, numbers, signs, unknown tokens; the number of tokens only where tokens have no words."""

    array: str
    """Input with token numbers, 0 for padding."""
    table: Ints
    """What a token adds to each count, ``[V, C]``."""

    @classmethod
    def of_suite(cls, suite: Suite, array: str) -> Self:
        """Read the words of the tokens from the suite's tokenizer."""
        texts = [spec for spec in suite.input_specs.values() if spec.kind == "text"]
        spec = next((spec for spec in texts if spec.arrays.get("tokens", "tokens") == array), None)
        tokenizer = (spec.encoder or {}).get("tokenizer", {}) if spec is not None else {}
        words: Mapping[str, int] = tokenizer.get("model", {}).get("vocab", {})
        special = {int(entry["id"]) for entry in tokenizer.get("added_tokens", ())}
        if not words:
            return cls(array, np.array([[0], [1]], dtype=np.int64))
        table = np.zeros((max(words.values()) + 1, 6), dtype=np.int64)
        for word, number in words.items():
            table[number] = (1, *((0, 0, 0, 0, 1) if number in special else (*_counted(word), 0)))
        table[0] = 0  # padding
        return cls(array, table)

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.table.shape[1]

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> NDArray[np.float32]:
        """Return the counts, ``[n, width]``."""
        tokens = inputs[self.array]
        found = np.zeros((len(rows), self.width), dtype=np.float32)
        step = max(1, _MOST_CELLS // max(tokens.shape[1] * self.width, 1))
        for start in range(0, len(rows), step):
            part = np.clip(np.asarray(tokens[rows[start : start + step]]), 0, len(self.table) - 1)
            found[start : start + step] = self.table[part].sum(axis=1)
        return found

    def graph(self, graph: GraphBuilder) -> str:
        """Add the counts to a graph; return the name of the float value ``[N, width]``."""
        known = graph.add("Min", self.array, np.array(len(self.table) - 1))
        each = graph.add("Gather", self.table.astype(np.float32), known, axis=0)
        return graph.add("ReduceSum", each, np.array([1]), keepdims=0)


@dataclass(frozen=True, slots=True, eq=False)
class TextShape:
    """For linear models: logarithms of the counts and their shares of the tokens, standardised and smoothly clipped."""

    counts: TextCounts
    center: Floats
    """Mean of each column over the training rows, ``[2 C - 1]``."""
    scale: Floats
    """Standard deviation of each column, 1 where it is 0."""

    @classmethod
    def learn(cls, suite: Suite, array: str) -> Self:
        """Standardise on the training rows."""
        counts = TextCounts.of_suite(suite, array)
        raw = cls._raw(counts.matrix(suite.inputs, suite.splits["train"]))
        scale = raw.std(axis=0)
        return cls(counts, raw.mean(axis=0), np.where(scale > 1e-9, scale, 1.0))

    @staticmethod
    def _raw(counts: Array) -> Floats:
        wide = counts.astype(np.float64)
        return np.concatenate([np.log1p(wide), wide[:, 1:] / np.maximum(wide[:, :1], 1.0)], axis=1)

    def matrix(self, inputs: Mapping[str, Array], rows: Ints) -> Floats:
        """Return ``[n, 2 C - 1]``."""
        return smooth_clip((self._raw(self.counts.matrix(inputs, rows)) - self.center) / self.scale)

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of the double value ``[N, 2 C - 1]``."""
        wide = graph.cast(self.counts.graph(graph), np.float64)
        parts = [graph.add("Log", graph.add("Add", wide, np.array(1.0)))]
        if self.counts.width > 1:
            first = graph.add("Slice", wide, np.array([0]), np.array([1]), np.array([1]))
            others = graph.add("Slice", wide, np.array([1]), np.array([self.counts.width]), np.array([1]))
            parts.append(graph.add("Div", others, graph.add("Max", first, np.array(1.0))))
        found = graph.add("Div", graph.add("Sub", graph.concat(parts), self.center[None]), self.scale[None])
        return smooth_clip_in_graph(graph, found)

    def state(self, prefix: str) -> dict[str, Array]:
        """Return the arrays that :meth:`of_state` reads back, their names behind a prefix."""
        return {f"{prefix}table": self.counts.table, f"{prefix}center": self.center, f"{prefix}scale": self.scale}

    @classmethod
    def of_state(cls, array: str, state: Mapping[str, Array], prefix: str) -> Self:
        """Return what :meth:`state` wrote."""
        return cls(TextCounts(array, state[f"{prefix}table"]), state[f"{prefix}center"], state[f"{prefix}scale"])

"""Which n-grams of a text tell most about the targets, and how often each stands in it: what trees read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.text.ngrams import NgramVocabulary, count_ngrams
from graftwork.domains.text.term_weights import TermWeights, count_in_graph
from graftwork.domains.text.text_shape import TextCounts

__all__ = ["TellingTerms"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
MOST_TERMS = 500
_MOST_CELLS = 40_000_000
"""Counts of all rows: many rows have fewer columns."""
_COLUMNS = 64
"""So many columns of targets choose terms, evenly over all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class TellingTerms:
    """Columns: how often each chosen n-gram stands in a text, and what :class:`~graftwork.domains.text.text_shape.TextCounts`
    counts. All are whole numbers, so that graphs and trees agree exactly about thresholds."""

    array: str
    """Input with token numbers."""
    vocabulary: NgramVocabulary
    counts: TextCounts

    @classmethod
    def learn(cls, suite: Suite, array: str, blocks: Sequence[LabelBlock], *, most: int = MOST_TERMS) -> Self:
        """Choose the n-grams whose weights correlate most with a column of the targets, in turn over the columns.

        Args:
            suite: A suite with a text.
            array: Its token numbers.
            blocks: The targets.
            most: Most n-grams.
        """
        most = int(np.clip(_MOST_CELLS // max(len(suite), 1), 50, most))
        terms, train, counts = TermWeights.learn(suite, array), suite.splits["train"], TextCounts.of_suite(suite, array)
        if not len(terms):
            return cls(array, terms.vocabulary, counts)
        weights = terms.matrix(suite.inputs, train)
        correlations = np.concatenate([_correlations(weights, block.targets(train)) for block in blocks], axis=1)
        places = np.linspace(0, correlations.shape[1] - 1, min(_COLUMNS, correlations.shape[1])).astype(np.int64)
        # The best n-gram of each column, then the second best of each ...
        ranked = np.argsort(-correlations[:, places], axis=0, kind="stable").reshape(-1)
        firsts = np.sort(np.unique(ranked, return_index=True)[1])[:most]
        return cls(array, _part(terms.vocabulary, np.sort(ranked[firsts])), counts)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.vocabulary) + self.counts.width

    def matrix(self, inputs: Mapping[str, Array], rows: Rows) -> NDArray[np.float32]:
        """Return ``[n, width]``."""
        found, terms = np.empty((len(rows), self.width), dtype=np.float32), len(self.vocabulary)
        found[:, terms:] = self.counts.matrix(inputs, rows)
        if terms:
            found[:, :terms] = count_ngrams(self.vocabulary, inputs[self.array], rows).toarray()
        return found

    def graph(self, graph: GraphBuilder) -> str:
        """Add the columns to a graph; return the name of the float value ``[N, width]``."""
        counts = self.counts.graph(graph)
        if not len(self.vocabulary):
            return counts
        return graph.concat([count_in_graph(graph, self.array, self.vocabulary.tokens()), counts])

    def state(self, prefix: str) -> dict[str, Array]:
        """Return the n-grams of each length, their names behind a prefix."""
        ngrams = {f"{prefix}ngrams_{length}": found for length, found in enumerate(self.vocabulary.tokens(), 1)}
        return {**ngrams, f"{prefix}counts": self.counts.table}


def _correlations(weights: Any, targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sizes of the correlations of sparse features ``[n, V]`` with targets ``[n, K]``, over rows with a label."""
    known = ~np.isnan(targets).any(axis=1)
    weights, targets = weights[np.flatnonzero(known)], targets[known]
    targets = targets - targets.mean(axis=0)
    spread = np.sqrt(np.square(targets).sum(axis=0))
    means, squares = np.asarray(weights.mean(axis=0)), np.asarray((weights * weights).sum(axis=0))
    lengths = np.sqrt(np.maximum(squares - len(targets) * means**2, 0.0))
    sizes = np.maximum(lengths[:, None] * spread, 1e-12)
    # Rounded: equal n-grams must not change places by the last digit.
    return np.round(np.abs(np.asarray(weights.T @ targets)) / sizes, 9)


def _part(vocabulary: NgramVocabulary, columns: Rows) -> NgramVocabulary:
    """Return the n-grams of some columns, in order."""
    codes, start = [], 0
    for found in vocabulary.codes:
        codes.append(found[columns[(columns >= start) & (columns < start + len(found))] - start])
        start += len(found)
    return NgramVocabulary(vocabulary.base, codes, vocabulary.texts_with[columns])

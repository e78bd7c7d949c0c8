"""TF-IDF of token n-grams, for sparse matrices and for graphs.

The weight of an n-gram in a text is ``(1 + log count) * idf``, and the weights of a text have length 1. A graph counts with the
operator TfIdfVectorizer of ONNX, which takes token numbers; the rest is written out, so that both compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.input_kinds import join_kinds
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.text.ngrams import NgramVocabulary, count_ngrams, learn_ngrams

__all__ = ["LONGEST", "MOST_TERMS", "TermWeights", "count_in_graph", "text_arrays"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
LONGEST = 3
"""Tokens of the longest n-grams: two words, or the pieces of a rare one."""
MOST_TERMS = 50_000
"""Columns of a text."""


def text_arrays(suite: Suite, learner: str) -> list[str]:
    """Return the names of the arrays of token numbers, one of each text of a suite.

    Raises:
        DataError: If it has no text, or an input that is neither a text nor a table.
    """
    kinds = set(suite.kinds)
    if "text" not in kinds or kinds - {"text", "table"}:
        raise DataError(
            f"{learner} needs a text, and may have the columns of a table beside it; the suite {suite.name!r} has the inputs: "
            f"{join_kinds(suite.kinds)}. Leave the plan out."
        )
    specs = [spec for spec in suite.input_specs.values() if spec.kind == "text"]
    names = [spec.arrays.get("tokens", "tokens") for spec in specs]
    missing = [name for name in names if name not in suite.inputs]
    if missing:
        raise DataError(f"{learner} reads the tokens of a suite's own tokenizer; {suite.name!r} lacks {', '.join(missing)}.")
    return names


def count_in_graph(graph: GraphBuilder, array: str, tokens: Sequence[NDArray[np.int64]]) -> str:
    """Add the number of times that n-grams stand in a text to a graph; return the name of the float value ``[N, V]``.

    Args:
        graph: It grows.
        array: Input with token numbers.
        tokens: The n-grams of each length ``n``, ``[V_n, n]``; at least one in all. Columns follow each other in this order.
    """
    longest = max(length for length, found in enumerate(tokens, 1) if len(found))
    sizes = [found.size for found in tokens[:longest]]
    return graph.add(
        "TfIdfVectorizer",
        array,
        mode="TF",
        min_gram_length=1,
        max_gram_length=longest,
        max_skip_count=0,
        ngram_counts=np.cumsum([0, *sizes[:-1]]).tolist(),
        ngram_indexes=list(range(sum(map(len, tokens)))),
        pool_int64s=np.concatenate([found.reshape(-1) for found in tokens]).tolist(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TermWeights:
    """The n-grams of one text that have a column, and how much each counts."""

    array: str
    """Input with token numbers."""
    vocabulary: NgramVocabulary
    idf: Floats
    """``[V]``: ``1 + log((1 + texts) / (1 + texts with it))``."""

    @classmethod
    def learn(cls, suite: Suite, array: str, *, most: int = MOST_TERMS) -> Self:
        """Choose n-grams from the training rows."""
        train = suite.splits["train"]
        found = learn_ngrams(suite.inputs[array], train, longest=LONGEST, most=most)
        return cls(array, found, 1.0 + np.log((1.0 + len(train)) / (1.0 + found.texts_with)))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def matrix(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> Any:
        """Return the weights, a sparse ``csr_array`` of float64 ``[n, V]`` with rows of length 1, or 0 where no n-gram is
        known."""
        found = count_ngrams(self.vocabulary, inputs[self.array], rows)
        found.data = (1.0 + np.log(found.data)) * self.idf[found.indices]
        sizes = np.diff(found.indptr)
        owner = np.repeat(np.arange(len(rows)), sizes)
        lengths = np.sqrt(np.bincount(owner, weights=np.square(found.data), minlength=len(rows)))
        found.data /= lengths[owner]
        return found

    def graph(self, graph: GraphBuilder) -> str:
        """Add the weights to a graph; return the name of the float value ``[N, V]``."""
        counts = count_in_graph(graph, self.array, self.vocabulary.tokens())
        one = np.array(1.0, dtype=np.float32)
        known = graph.add("Min", counts, one)
        terms = graph.add("Add", graph.add("Log", graph.add("Max", counts, one)), known)
        weights = graph.add("Mul", graph.add("Mul", terms, known), self.idf.astype(np.float32))
        lengths = graph.add("ReduceL2", weights, np.array([1], dtype=np.int64), keepdims=1)
        return graph.add("Div", weights, graph.add("Max", lengths, np.array(1e-30, dtype=np.float32)))

    def state(self, prefix: str) -> dict[str, Array]:
        """Return the arrays that :meth:`of_state` reads back, their names behind a prefix."""
        codes = {f"{prefix}codes_{length}": found for length, found in enumerate(self.vocabulary.codes, 1)}
        facts = {f"{prefix}base": np.array([self.vocabulary.base]), f"{prefix}texts_with": self.vocabulary.texts_with}
        return {**codes, **facts, f"{prefix}idf": self.idf}

    @classmethod
    def of_state(cls, array: str, state: Mapping[str, Array], prefix: str) -> Self:
        """Return what :meth:`state` wrote."""
        longest = sum(name.startswith(f"{prefix}codes_") for name in state)
        codes = [state[f"{prefix}codes_{length}"] for length in range(1, longest + 1)]
        vocabulary = NgramVocabulary(int(state[f"{prefix}base"][0]), codes, state[f"{prefix}texts_with"])
        return cls(array, vocabulary, state[f"{prefix}idf"])

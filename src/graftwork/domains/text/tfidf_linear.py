"""TF-IDF and linear models: each text as a bag of words, pairs of words and pieces of rare words, one model per target.

Numbers have ridge regression, classes and flags logistic regression, each with the strength that predicts held-out training rows
best. How long texts are and how many numbers and signs they have are features, too, as are columns of a table beside the text. Shares nothing between tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.label_blocks import LabelBlock, answers_of, graph_answers, label_blocks
from graftwork.domains.tabular.one_shot import OneShotLearner, State
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.text.linear_fits import fit_linear_blocks
from graftwork.domains.text.table_columns import TableColumns
from graftwork.domains.text.term_weights import MOST_TERMS, TermWeights, text_arrays
from graftwork.domains.text.text_shape import TextShape
from graftwork.interfaces.learner import LearnerContext

__all__ = ["TfidfLinearLearner"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
_MOST_COEFFICIENTS = 2_000_000
"""Columns of the text times columns of the target with most classes: what one fit looks for."""
_MOST_STORED = 20_000_000
"""Columns of the text times those of all targets."""
_LEAST_TERMS = 1000
_ROWS = 2048
"""Rows that are predicted at a time."""


class TfidfLinearLearner(OneShotLearner):
    """Linear models of n-grams of tokens, one per target.

    Args:
        context: A suite with a text, and perhaps a table.
        most_terms: Most n-grams of a text, at least 1; fewer where targets have thousands of classes.

    Raises:
        DataError: If the suite has no text or inputs of other kinds, a task is not made of classes or numbers, or has no training
            label.
    """

    words: ClassVar[str] = "linear models of texts"
    slug: ClassVar[str] = "tfidf-linear"

    def __init__(self, context: LearnerContext, *, most_terms: int = MOST_TERMS) -> None:
        super().__init__(context)
        self.arrays = text_arrays(context.suite, "The plan of linear models of texts")
        self.blocks: list[LabelBlock] = label_blocks(context.suite, "The plan of linear models of texts")
        widths = [block.width for block in self.blocks]
        most = min(_MOST_COEFFICIENTS // max(widths), _MOST_STORED // sum(widths))
        self._most_terms = max(1, min(most_terms, max(most, _LEAST_TERMS)))

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Choose n-grams, then fit every target."""
        suite = self.context.suite
        terms = [TermWeights.learn(suite, array, most=self._most_terms) for array in self.arrays]
        table = TableColumns.of_suite(suite)
        state: State = {"columns": table.columns, "levels": table.levels}
        shapes = [TextShape.learn(suite, array) for array in self.arrays]
        for number, (found, shape) in enumerate(zip(terms, shapes, strict=True)):
            state |= found.state(f"text_{number}_") | shape.state(f"shape_{number}_")
        weights, intercepts, strengths = fit_linear_blocks(
            self._matrix(terms, [*shapes, table], suite.inputs, suite.splits["train"]),
            self.blocks,
            suite.splits["train"],
            suite.groups,
        )
        # What predicts is what is stored, so that a loaded model gives the same bits.
        state |= {"weights": weights.astype(np.float32), "intercepts": intercepts}
        return state, {"terms": [len(found) for found in terms], "strengths": strengths}

    @staticmethod
    def _matrix(terms: list[TermWeights], dense: list[TextShape | TableColumns], inputs: Mapping[str, Array], rows: Rows) -> Any:
        from scipy.sparse import csr_array, hstack

        parts = [weights.matrix(inputs, rows) for weights in terms]
        return csr_array(hstack([*parts, *(csr_array(part.matrix(inputs, rows)) for part in dense)], format="csr"))

    def _parts(self, state: State) -> tuple[list[TermWeights], list[TextShape | TableColumns]]:
        terms = [TermWeights.of_state(array, state, f"text_{number}_") for number, array in enumerate(self.arrays)]
        shapes = [TextShape.of_state(array, state, f"shape_{number}_") for number, array in enumerate(self.arrays)]
        arrays = TableColumns.of_suite(self.context.suite).arrays
        return terms, [*shapes, TableColumns(arrays, state["columns"], state["levels"])]

    def answers(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the answers, some thousand rows at a time."""
        if not state:
            shares = [block.shares(block.labelled(self.context.suite.splits["train"])) for block in self.blocks]
            return answers_of(self.blocks, [np.tile(share, (len(rows), 1)) for share in shares])
        terms, dense = self._parts(state)
        weights = state["weights"].astype(np.float64)
        found = []
        for start in range(0, max(len(rows), 1), _ROWS):
            x = self._matrix(terms, dense, inputs, rows[start : start + _ROWS])
            found.append(answers_of(self.blocks, self._scores(np.asarray(x @ weights) + state["intercepts"])))
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _scores(self, raw: Array) -> list[Array]:
        """Return numbers as they are, and probabilities of classes."""
        scores, start = [], 0
        for block in self.blocks:
            part = raw[:, start : start + block.width]
            start += block.width
            if block.width > 1:
                part = np.exp(part - part.max(axis=1, keepdims=True))
                part = part / part.sum(axis=1, keepdims=True)
            elif not block.is_number:
                part = 0.5 * (1.0 + np.tanh(0.5 * part))
            scores.append(part)
        return scores

    def graph_answers(self, graph: GraphBuilder, state: State) -> dict[str, str]:
        """Add the model to a graph; return ``{task: name}``."""
        terms, dense = self._parts(state)
        total, start = graph.constant(state["intercepts"][None]), 0
        for found in terms:
            if len(found):
                product = graph.add("MatMul", found.graph(graph), state["weights"][start : start + len(found)])
                total = graph.add("Add", total, graph.cast(product, np.float64))
            start += len(found)
        columns = [name for name in (part.graph(graph) for part in dense) if name]
        product = graph.add("MatMul", graph.concat(columns), state["weights"][start:].astype(np.float64))
        total = graph.add("Add", total, product)
        return graph_answers(graph, self.blocks, self._graph_scores(graph, total))

    def _graph_scores(self, graph: GraphBuilder, total: str) -> list[str]:
        widths = [block.width for block in self.blocks]
        scores, start = [], 0
        for block, width in zip(self.blocks, widths, strict=True):
            part = total
            if len(widths) > 1:
                bounds = np.array([start]), np.array([start + width]), np.array([1])
                part = graph.add("Slice", total, *bounds)
            start += width
            if width > 1:
                part = graph.add("Softmax", part, axis=1)
            elif not block.is_number:
                part = graph.add("Sigmoid", part)
            scores.append(part)
        return scores

"""Learners of tables on pictures: what they see of a picture are the columns of :class:`.PictureTable`, beside those of a table.

They take seconds, and are hard to beat where little is to be seen in a picture: its colours, how full it is, a digit in its middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.input_spec import table_input
from graftwork.data.array_cache import cached_arrays
from graftwork.data.suite import Suite
from graftwork.domains.tabular.forests import ExtraTreesLearner
from graftwork.domains.tabular.linear import LinearLearner
from graftwork.domains.tabular.one_shot import BlockLearner, OneShotLearner, State
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.text.table_columns import table_arrays
from graftwork.domains.vision.picture_table import PictureTable
from graftwork.interfaces.learner import LearnerContext

__all__ = ["PixelsLinearLearner", "PixelsTreesLearner"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
_VERSION = 1
"""Raised whenever the same pictures would give other columns."""


class PixelsLearner(OneShotLearner):
    """A learner of tables behind a table that is made of the pictures.

    Args:
        context: A suite of pictures, and perhaps of columns beside them.
        **settings: Those of the learner of tables.

    Raises:
        DataError: If the suite has no picture, or a task is not made of classes or numbers, or has no training label.
    """

    inner_type: ClassVar[type[BlockLearner]]

    def __init__(self, context: LearnerContext, **settings: Any) -> None:
        super().__init__(context)
        self._pictures = PictureTable.of_suite(context.suite, f"The learner {self.words!r}")
        self._table = table_arrays(context.suite)
        self._inner = self.inner_type(replace(context, suite=self._as_table(context.suite)), **settings)

    def _as_table(self, suite: Suite) -> Suite:
        """Return a suite whose only input is a table; runs share the columns of its pictures by their cache."""
        pictures = suite.inputs[self._pictures.array]
        key = hashlib.sha256(f"{_VERSION} {self._pictures} {pictures.shape}".encode())
        key.update(np.ascontiguousarray(pictures).reshape(-1).data)
        rows = np.arange(len(suite))
        found = cached_arrays(
            self.context.cache / "features",
            f"pixels-{key.hexdigest()[:32]}",
            lambda: {"columns": self._pictures.matrix(suite.inputs, rows)},
        )
        inputs = self._joined(found["columns"], suite.inputs, rows)
        sizes = [int(top) + 1 for top in inputs["categorical"].max(axis=0, initial=0)] if "categorical" in inputs else []
        return replace(suite, inputs=inputs, input_specs=table_input(inputs["numeric"].shape[1], sizes), raw={})

    def _joined(self, columns: Array, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the arrays of a table: columns of the pictures, then numbers of the table; category codes."""
        found = {"numeric": columns}
        if "numeric" in self._table:
            numbers = np.asarray(inputs[self._table["numeric"]][rows], dtype=np.float32)
            found["numeric"] = np.concatenate([columns, numbers], axis=1)
        if "categorical" in self._table:
            found["categorical"] = np.asarray(inputs[self._table["categorical"]][rows])
        return found

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Fit the learner of tables."""
        return self._inner.fit()

    def answers(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the answers of the learner of tables."""
        if inputs is self.context.suite.inputs:
            return self._inner.answers(state, self._inner.context.suite.inputs, rows)
        columns = self._joined(self._pictures.matrix(inputs, rows), inputs, rows)
        return self._inner.answers(state, columns, np.arange(len(rows)))

    def graph_answers(self, graph: GraphBuilder, state: State) -> dict[str, str]:
        """Add the columns and the model to a graph."""
        columns = [self._pictures.graph(graph)]
        if "numeric" in self._table:
            columns.append(graph.cast(self._table["numeric"], np.float32))
        graph.stand_in("numeric", graph.concat(columns))
        if "categorical" in self._table:
            graph.stand_in("categorical", self._table["categorical"])
        return self._inner.graph_answers(graph, state)

    def count_numbers(self, state: State) -> int:
        """Return how many numbers the model is made of."""
        return self._inner.count_numbers(state)


class _PlainLinear(LinearLearner):
    """Takes numbers as they are: pixels have bounds, so that there are no outliers to be bent."""

    def _designs(self) -> list[Rows]:
        return [self._design.plain]


class PixelsLinearLearner(PixelsLearner):
    """Ridge and logistic regression on brightness, colours and edges of pictures."""

    words = "linear models of pixels"
    slug = "pixels-linear"
    inner_type = _PlainLinear


class PixelsTreesLearner(PixelsLearner):
    """Extra trees on brightness, colours and edges of pictures, a forest for each target.

    Args:
        context: A suite of pictures, and perhaps of columns beside them.
        num_trees: Trees of each forest, at least 1.
        max_features: Share of the columns that a split looks at, in (0, 1]. By default a tenth, since neighbouring cells say much the
            same and few columns make trees that differ; 0.3 where a table beside the picture has columns that must not be missed.
        **settings: Others of :class:`~graftwork.domains.tabular.forests.ExtraTreesLearner`.

    Raises:
        DataError: See :class:`PixelsLearner`.
    """

    words = "extra trees on pixels"
    slug = "pixels-trees"
    inner_type = ExtraTreesLearner

    def __init__(
        self, context: LearnerContext, *, num_trees: int = 200, max_features: float | None = None, **settings: Any
    ) -> None:
        share = max_features if max_features is not None else 0.3 if table_arrays(context.suite) else 0.1
        super().__init__(context, num_trees=num_trees, max_features=share, **settings)

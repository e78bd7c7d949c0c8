"""Boosted trees on n-gram counts of a text and the columns of a table beside it: LightGBM behind a table made of the text.

Shares nothing between tasks, but the targets choose the n-grams together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.files import write_bytes, write_json, write_text
from graftwork.core.input_spec import table_input, write_input_specs
from graftwork.data.suite import Suite
from graftwork.domains.tabular.behind_table import BehindTableLearner
from graftwork.domains.tabular.label_blocks import label_blocks
from graftwork.domains.tabular.lightgbm import LightGBMLearner
from graftwork.domains.tabular.suite_graph import GraphBuilder, output_names
from graftwork.domains.tabular.trees_onnx import ensemble_attributes
from graftwork.domains.text.table_columns import table_arrays
from graftwork.domains.text.telling_terms import MOST_TERMS, TellingTerms
from graftwork.domains.text.term_weights import text_arrays
from graftwork.interfaces.learner import LearnerContext

__all__ = ["TfidfLightGBMLearner"]

Array = NDArray[Any]


class TfidfLightGBMLearner(BehindTableLearner):
    """Boosted trees for every target; a step is a round, as :class:`~graftwork.domains.tabular.lightgbm.LightGBMLearner` counts.

    Args:
        context: A suite with a text, and perhaps a table.
        most_terms: Most n-grams that are counted in each text, at least 1; fewer where there are more than 80,000 rows.
        **settings: Those of LightGBMLearner.

    Raises:
        MissingDependencyError: If LightGBM is not installed.
        DataError: If the suite has no text or inputs of other kinds, a task is not made of classes or numbers, or has no training
            label.
    """

    def __init__(self, context: LearnerContext, *, most_terms: int = MOST_TERMS, **settings: Any) -> None:
        super().__init__(context)
        arrays = text_arrays(context.suite, "The plan of trees on texts")
        blocks = label_blocks(context.suite, "The plan of trees on texts", most_classes=None)
        self.terms = [TellingTerms.learn(context.suite, array, blocks, most=most_terms) for array in arrays]
        self._table = table_arrays(context.suite)
        self._inner = LightGBMLearner(replace(context, suite=self._as_table(context.suite)), **settings)

    def _as_table(self, suite: Suite) -> Suite:
        """Return a suite whose only input is a table: counts, numbers, category codes."""
        inputs = self._features(suite.inputs, np.arange(len(suite)))
        sizes = [int(top) + 1 for top in inputs["categorical"].max(axis=0, initial=0)] if "categorical" in inputs else []
        return replace(suite, inputs=inputs, input_specs=table_input(inputs["numeric"].shape[1], sizes), raw={})

    def _features(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> dict[str, Array]:
        parts = [terms.matrix(inputs, rows) for terms in self.terms]
        if "numeric" in self._table:
            parts.append(np.asarray(inputs[self._table["numeric"]][rows], dtype=np.float32))
        found: dict[str, Array] = {"numeric": np.concatenate(parts, axis=1)}
        if "categorical" in self._table:
            found["categorical"] = np.asarray(inputs[self._table["categorical"]][rows])
        return found

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the best rounds so far."""
        if inputs is None:
            return self._inner.predict(rows, tasks)
        features = self._features(inputs, np.asarray(rows))
        return self._inner.predict(np.arange(len(rows)), tasks, inputs=features)

    def export(self, folder: Path) -> None:
        """Write the boosters in LightGBM's text format, the n-grams as ``model.safetensors``, ``config.json`` and the checked
        ``model.onnx``."""
        from safetensors.numpy import save

        folder, suite = Path(folder), self.context.suite
        state = {name: array for number, terms in enumerate(self.terms) for name, array in terms.state(f"text_{number}_").items()}
        write_bytes(folder / "model.safetensors", save(state))
        files: dict[str, list[str]] = {}
        for index, (task, group) in enumerate(self._inner.boosters.items()):
            files[task] = [f"task-{index}-{number}.txt" for number in range(len(group))]
            for name, booster in zip(files[task], group, strict=True):
                write_text(folder / name, booster.to_text(best=True))
        rows = suite.splits["test"][:64] if len(suite.splits["test"]) else suite.splits["train"][:64]
        graph = GraphBuilder(suite)
        difference = graph.write(
            self._graph_answers(graph), folder / "model.onnx", self.predict(rows), rows, what="trees on texts"
        )
        write_json(
            folder / "config.json",
            {
                "learner": "tfidf-lightgbm",
                "format": "graftwork-tfidf-lightgbm-1",
                "plan": self.context.plan.to_json(),
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": output_names(suite),
                "input_specs": write_input_specs(suite.input_specs),
                "boosters": files,
                "onnx_max_difference": difference,
            },
        )

    def _graph_answers(self, graph: GraphBuilder) -> dict[str, str]:
        parts = [terms.graph(graph) for terms in self.terms]
        if "numeric" in self._table:
            parts.append(self._table["numeric"])
        if "categorical" in self._table:
            parts.append(graph.cast(self._table["categorical"], np.float32))
        features, answers = graph.concat(parts), {}
        for task in self.context.suite.tasks:
            values = []
            for booster in self._inner.boosters[task.name]:
                value = graph.add("TreeEnsemble", features, domain="ai.onnx.ml", **ensemble_attributes(booster))
                if booster.objective != "regression":
                    value = graph.add("Sigmoid", value) if booster.num_classes == 1 else graph.add("Softmax", value, axis=1)
                values.append(graph.cast(value, np.float64))
            answers[task.name] = graph.arrange(task, graph.concat(values))
        return answers

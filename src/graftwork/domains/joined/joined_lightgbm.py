"""Boosted trees on the columns of a table and on what frozen backbones say of the text and the picture beside it, or on the columns
alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.files import write_bytes, write_json
from graftwork.core.input_spec import table_input, write_input_specs
from graftwork.core.records import Ledger
from graftwork.core.scratch import scratch_folder
from graftwork.core.seeds import Seeds
from graftwork.data.loader import inputs_to_torch
from graftwork.domains.joined.feature_scores import FeatureScores
from graftwork.domains.joined.scored_features import ScoredFeatures
from graftwork.domains.tabular.behind_table import BehindTableLearner
from graftwork.domains.tabular.label_blocks import label_blocks
from graftwork.domains.tabular.lightgbm import LightGBMLearner
from graftwork.domains.text.table_columns import table_arrays
from graftwork.export.chained_graphs import chain_models
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.learner import LearnerContext
from graftwork.training.assembly import frozen_fronts, prepare_inputs
from graftwork.training.feature_store import cached_features
from graftwork.training.validation import evaluation_batch

__all__ = ["JoinedLightGBMLearner"]

Array = NDArray[Any]
_CHECKED_ROWS = 16
_TIMED = 5


class JoinedLightGBMLearner(BehindTableLearner):
    """Boosted trees for every target; a step is a round, as :class:`~graftwork.domains.tabular.lightgbm.LightGBMLearner` counts.

    A linear model on the features of each backbone gives one column for each column of the labels
    (:class:`.FeatureScores`); trees see these columns beside those of the table. Of a plan without a tuner they see the table alone,
    which takes next to no time.

    Args:
        context: A suite with a text or a picture, and mostly a table beside it; a plan without a tuner, or with one that keeps
            backbones fixed.
        **settings: Those of LightGBMLearner.

    Raises:
        MissingDependencyError: If LightGBM is not installed.
        ConfigError: If no input has a backbone whose features stay fixed; or there is neither a tuner nor a table.
        DataError: If a task is not made of classes or numbers, or has no training label.
    """

    def __init__(self, context: LearnerContext, **settings: Any) -> None:
        super().__init__(context)
        torch.set_num_threads(context.threads)
        # Building draws from the global generator; the caller's numbers must go on as if nothing had been built.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(Seeds(context.seed).integer("init"))
            self.suite = prepare_inputs(context.suite, context.plan, context.backbone)
            self._fronts = frozen_fronts(context.plan, self.suite.input_specs, context.backbone)
        self._table = table_arrays(self.suite)
        if not self._fronts and (context.plan.train.tuning is not None or not self._table):
            raise ConfigError(
                f"Plan {context.plan.name!r} joins columns with features of a text or a picture, and no input of the suite "
                f"{context.suite.name!r} has a fixed backbone (inputs: {', '.join(context.suite.kinds)})."
            )
        blocks = label_blocks(self.suite, "The plan of trees on joined columns", most_classes=None) if self._fronts else []
        self._latency = 0.0
        self._scores: list[FeatureScores] = []
        columns = [np.zeros((len(self.suite), 0), dtype=np.float32)]
        for front in self._fronts:
            arrays = front.spec.own(self.suite.inputs)
            features = cached_features(front.backbone, arrays, context.cache / "features", batch_size=32)
            scores, found = FeatureScores.learn(self.suite, features, blocks, Seeds(context.seed).integer("folds"))
            self._scores.append(scores)
            columns.append(found)
        inputs = self._joined(np.concatenate(columns, axis=1), self.suite.inputs, np.arange(len(self.suite)))
        sizes = [int(top) + 1 for top in inputs["categorical"].max(axis=0, initial=0)] if "categorical" in inputs else []
        specs = table_input(inputs["numeric"].shape[1], sizes)
        self._inner = LightGBMLearner(
            replace(context, suite=replace(self.suite, inputs=inputs, input_specs=specs, raw={})), **settings
        )

    def _joined(self, scores: Array, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> dict[str, Array]:
        """Return the arrays of a table: scores, then numbers; category codes."""
        parts = [np.asarray(scores, dtype=np.float32)]
        if "numeric" in self._table:
            parts.append(np.asarray(inputs[self._table["numeric"]][rows], dtype=np.float32))
        found: dict[str, Array] = {"numeric": np.concatenate(parts, axis=1)}
        if "categorical" in self._table:
            found["categorical"] = np.asarray(inputs[self._table["categorical"]][rows])
        return found

    @property
    def _network(self) -> ScoredFeatures:
        return ScoredFeatures(self._fronts, self._scores).eval()

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the best rounds so far; ``inputs`` are those of the learner's :attr:`suite`."""
        rows = np.asarray(rows, dtype=np.int64)
        if inputs is None and not (self._fronts and np.isin(rows, self.suite.splits["train"]).any()):
            return self._inner.predict(rows, tasks)
        # Training rows have scores of models that did not know them; what is deployed knows all.
        columns = self._joined(self._deployed_scores(inputs or self.suite.inputs, rows), inputs or self.suite.inputs, rows)
        return self._inner.predict(np.arange(len(rows)), tasks, inputs=columns)

    def _deployed_scores(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> Array:
        if not self._fronts:
            return np.zeros((len(rows), 0), dtype=np.float32)
        network, size = self._network, evaluation_batch(inputs)
        torch.set_num_threads(self.context.threads)
        parts = []
        with torch.inference_mode():
            for start in range(0, max(len(rows), 1), size):
                parts.append(network.encode(inputs_to_torch(inputs, rows[start : start + size])).numpy())
        return np.concatenate(parts)

    def ledger(self) -> Ledger:
        """Return the costs so far: those of the trees, and the numbers and the time of the backbones that are deployed."""
        costs, deployed = self._inner.ledger(), sum(parameter.numel() for parameter in self._network.parameters())
        if self._fronts and not self._latency:
            times = []
            for _ in range(_TIMED):
                started = time.perf_counter()
                self.predict(np.arange(1), inputs=self.suite.inputs)
                times.append(time.perf_counter() - started)
            self._latency = 1000.0 * min(times)
        return replace(
            costs,
            parameters_total=costs.parameters_total + deployed,
            parameters_stored=costs.parameters_stored + deployed,
            latency_ms_batch1=self._latency,
        )

    def own_costs(self) -> dict[str, Ledger]:
        """Return the numbers of each task's trees; the backbones serve all."""
        return self._inner.own_costs()

    def export(self, folder: Path) -> None:
        """Write the trees into ``trees``, the linear models as ``model.safetensors``, ``config.json`` and the checked
        ``model.onnx``; weights of the backbones are in the graph."""
        from safetensors.numpy import save

        folder, suite, network = Path(folder), self.suite, self._network
        state = {name: array for number, one in enumerate(self._scores) for name, array in one.state(f"scores_{number}_").items()}
        write_bytes(folder / "model.safetensors", save(state))
        self._inner.export(folder / "trees")
        rows = np.asarray(suite.splits["val"] if len(suite.splits["val"]) else suite.splits["train"], dtype=np.int64)
        rows = rows[:_CHECKED_ROWS]
        arrays = {name: np.asarray(array[rows]) for name, array in suite.inputs.items()}
        columns: dict[str, list[str]] = {"numeric": [network.name] if self._fronts else [], "categorical": []}
        for own, name in self._table.items():
            columns[own].append(name)
        with scratch_folder("export") as scratch:
            front = scratch / "front.onnx" if self._fronts else None
            if front is not None:
                export_onnx(network, [network.task()], inputs_to_torch(suite.inputs, rows), front)
            difference, names = chain_models(
                front, folder / "trees" / "model.onnx", columns, suite, folder / "model.onnx", self.predict(rows), arrays
            )
        (folder / "trees" / "model.onnx").unlink()
        write_json(
            folder / "config.json",
            {
                "learner": "joined-lightgbm",
                "format": "graftwork-joined-lightgbm-1",
                "plan": self.context.plan.to_json(),
                "backbone": self.context.backbone,
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": names,
                "input_specs": write_input_specs(suite.input_specs),
                "onnx_max_difference": difference,
            },
        )

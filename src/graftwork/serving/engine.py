"""The model behind a server: which session answers, what it costs, and how rows become answers. Knows nothing of HTTP. No
torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.serving.asking import Ask
from graftwork.serving.batching import Batcher, Runner
from graftwork.serving.controls import Configuration, find_controls
from graftwork.serving.costs import graph_costs
from graftwork.serving.kept_plans import model_date
from graftwork.serving.limits import ServeLimits
from graftwork.serving.predict import Predictor
from graftwork.serving.readers import reader_of
from graftwork.serving.served_model import AskCost, ServedModel
from graftwork.serving.service import Service
from graftwork.serving.session import OnnxModel, read_model

__all__ = ["Engine"]

Lane = tuple[Path, tuple[str, ...]]
"""The ONNX file and the tasks that are asked of it."""


class Engine(Service, ServedModel):
    """Answers requests with the model of a run.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote; ``controls.json`` beside its ``model.onnx`` makes the model controllable.
        limits: Of requests and batches.
        threads: Threads of ONNX Runtime for each session; None takes all cores.
        plan: Name of a finalist whose model the run kept; None is the chosen plan.

    Raises:
        FileFormatError: If the folder is no finished run, or a file in it is damaged.
        ConfigError: If the run has no model of this plan.
        DataError: If the run has no encoder (it was trained on ready arrays).
    """

    def __init__(
        self,
        run_folder: str | Path,
        *,
        limits: ServeLimits | None = None,
        threads: int | None = None,
        plan: str | None = None,
    ) -> None:
        limits = limits or ServeLimits()
        self._threads = threads
        self.predictor = Predictor(run_folder, plan=plan, threads=threads)
        self.name = self.title = self.predictor.folder.resolve().name
        self.plan, self.kind = self.predictor.plan, self.predictor.kind
        self.created = model_date(self.predictor.folder, self.predictor.plan)
        self.specs = {spec.name: spec for spec in self.predictor.tasks}
        self.reader = reader_of(self.predictor.encoder, self.predictor.inputs, limits)
        self._main = self.predictor.model.path.resolve()  # as configurations are named, which can be the full model too
        self.controls = find_controls(self._main)
        if self.controls and set(self.controls.tasks) != set(self.specs):
            raise DataError(
                f"controls.json speaks of the tasks {list(self.controls.tasks)}, the model of "
                f"{list(self.specs)}. Export the model again."
            )
        # Of the full model; those of configurations are counted when their lane opens.
        self.costs = graph_costs(self.predictor.model.content, self.predictor.model.outputs)
        # All files, now: one that is replaced later would give two answers for one row, and one that is deleted none.
        self._contents = {item.file: read_model(item.file) for item in self.controls.configurations} if self.controls else {}
        self._lane_costs: dict[Lane, AskCost] = {}
        batcher = Batcher(
            self._open,
            max_batch=limits.max_batch,
            max_wait=limits.max_wait_ms / 1000,
            max_lanes=limits.max_lanes,
            on_batch=self._count_batch,
        )
        super().__init__(limits, batcher, {task: self.costs.share([task]) for task in self.specs} if self.costs else {})

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """No names: there is one model."""
        return {}

    @property
    def only_model(self) -> ServedModel:
        """This one."""
        return self

    @property
    def smallest_budget(self) -> float | None:
        """Share of the smallest configuration; None if the model is not controllable."""
        if self.controls is None:
            return None
        return min(item.flops for item in self.controls.configurations) / self.controls.full_flops

    @property
    def widest_interval(self) -> float | None:
        """See :attr:`.Predictor.widest_interval`."""
        return self.predictor.widest_interval

    def warm_up(self) -> None:
        """Open the lane of all tasks and run a row through it, so that the first request does not pay for that.

        Raises:
            GraftworkError: If the model does not run.
        """
        # As a request of all tasks would ask, through the same queue.
        for future in self.batcher.submit((self._main, self.tasks), self.reader.blank()):
            future.result()

    def intervals(self, level: float, tasks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """See :meth:`.Predictor.interval_widths`."""
        # Classes have none, which is no fault of a request that names an interval for whatever is a number.
        numbers = [task for task in tasks if task in self.predictor.tasks_with_intervals]
        return self.predictor.interval_widths(level, numbers) if numbers else {}

    def lane(self, ask: Ask, configuration: Configuration | None) -> Lane:
        """Return the file and the tasks."""
        return configuration.file if configuration else self._main, ask.tasks

    def cost(self, lane: Hashable) -> AskCost:
        """Return what a row costs; known once the lane has opened."""
        return self._lane_costs.get(lane, AskCost(None, None))  # type: ignore[call-overload, no-any-return]

    def configuration(self, ask: Ask) -> Configuration | None:
        """Return the sub-network within the budget of a request."""
        # Without a wish the full model answers, also of a controllable run.
        if self.controls is None or (ask.budget is None and ask.importance is None):
            return None
        return self.controls.choose(ask.budget if ask.budget is not None else 1.0, ask.importance, asked=ask.tasks)

    def _open(self, lane: Lane) -> Runner:
        """Return what runs the batches of a lane; called in its thread."""
        path, tasks = lane
        main = self.predictor.model
        model = main if path == self._main else OnnxModel(path, threads=self._threads, content=self._contents[path])
        only, reader = model.only(tasks), self.reader
        only.run(reader.encode(reader.blank()), tasks)  # the first run of a session sets up its memory
        # Bounded: clients choose tasks freely, and there are as many lanes as sets of them.
        if len(self._lane_costs) > 1_000:
            self._lane_costs.clear()
        self._lane_costs[lane] = self._cost(lane, model)
        return lambda rows: only.run(reader.encode(rows), tasks)

    def _cost(self, lane: Lane, model: OnnxModel) -> AskCost:
        path, tasks = lane
        if path == self._main:
            return AskCost(self.costs.flops(tasks), self.costs.total) if self.costs else AskCost(None, None)
        assert self.controls is not None
        configuration = next(item for item in self.controls.configurations if item.file == path)
        costs = graph_costs(model.content, model.outputs)
        # The listed FLOPs are those of all tasks; the graph says which share these need.
        return AskCost(configuration.flops * (costs.share(tasks) if costs else 1.0), self.controls.full_flops)

    def _count_batch(self, lane: Lane, rows: int, seconds: float) -> None:
        tasks = lane[1]
        # Three kinds of labels: sets of tasks as labels would grow without end.
        self.metrics.count_batch(
            "all" if len(tasks) == len(self.specs) else tasks[0] if len(tasks) == 1 else "several", rows, seconds
        )

"""The model behind a server: which session answers, what it costs, and how rows become answers. Knows nothing of HTTP. No
torch."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError, FileFormatError, GraftworkError
from graftwork.core.input_kinds import input_kind, load_part
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.encoders.joint import JointEncoder
from graftwork.serving.answers import prediction_rows, to_json
from graftwork.serving.asking import Ask
from graftwork.serving.batching import Answer, Batcher, Runner
from graftwork.serving.controls import Configuration, Controls, find_controls
from graftwork.serving.costs import GraphCosts, graph_costs
from graftwork.serving.joint import JointReader
from graftwork.serving.limits import ServeLimits
from graftwork.serving.metrics import ServerMetrics
from graftwork.serving.predict import Predictor
from graftwork.serving.problems import Problem, RequestError
from graftwork.serving.reading import RowReader
from graftwork.serving.session import OnnxModel, read_model
from graftwork.serving.threads import Threads

__all__ = ["Engine"]

Lane = tuple[Path, tuple[str, ...]]
"""The ONNX file and the tasks that are asked of it."""
_MUCH = 20_000
"""Numbers of an answer from which on writing it as JSON is left to another thread."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """FLOPs per row of one lane; None if they are not known."""

    flops: float | None
    full: float | None

    @property
    def saved_flops(self) -> float:
        return max(0.0, self.full - self.flops) if self.flops is not None and self.full is not None else 0.0

    def json(self) -> dict[str, Any]:
        """Return the JSON form; ``saved`` is a share of the full model."""
        return {
            "flops": self.flops,
            "full_flops": self.full,
            "saved": round(self.saved_flops / self.full, 4) if self.full else None,
        }


class Engine:
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
        self.limits = limits or ServeLimits()
        self._threads = threads
        self.predictor = Predictor(run_folder, plan=plan, threads=threads)
        self.specs: dict[str, TaskSpec] = {spec.name: spec for spec in self.predictor.tasks}
        self.reader = _reader(self.predictor, self.limits)
        self._main = self.predictor.model.path.resolve()  # as configurations are named, which can be the full model too
        self.controls: Controls | None = find_controls(self._main)
        if self.controls and set(self.controls.tasks) != set(self.specs):
            raise DataError(
                f"controls.json speaks of the tasks {list(self.controls.tasks)}, the model of "
                f"{list(self.specs)}. Export the model again."
            )
        # Of the full model; those of configurations are counted when their lane opens.
        self.costs: GraphCosts | None = graph_costs(self.predictor.model.content, self.predictor.model.outputs)
        # All files, now: one that is replaced later would give two answers for one row, and one that is deleted none.
        self._contents = {item.file: read_model(item.file) for item in self.controls.configurations} if self.controls else {}
        self.requests_in_work = 0
        self.is_stopping = False
        """Whether new requests are to be refused; set by :meth:`stop`."""
        self._lane_costs: dict[Lane, _Cost] = {}
        self.threads = Threads()
        """For what would hold up all other requests."""
        self.batcher = Batcher(
            self._open,
            max_batch=self.limits.max_batch,
            max_wait=self.limits.max_wait_ms / 1000,
            max_lanes=self.limits.max_lanes,
            on_batch=self._count_batch,
        )
        shares = {task: self.costs.share([task]) for task in self.specs} if self.costs else {}
        self.metrics = ServerMetrics(shares, lambda: self.batcher.num_waiting, lambda: self.batcher.num_lanes)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the model's outputs."""
        return tuple(self.specs)

    @property
    def smallest_budget(self) -> float | None:
        """Share of the smallest configuration; None if the model is not controllable."""
        if self.controls is None:
            return None
        return min(item.flops for item in self.controls.configurations) / self.controls.full_flops

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Count a request while it is checked, queued or computed."""
        self.requests_in_work += 1
        self.metrics.in_work.set(self.requests_in_work)
        try:
            yield
        finally:
            self.requests_in_work -= 1
            self.metrics.in_work.set(self.requests_in_work)

    def warm_up(self) -> None:
        """Open the lane of all tasks and run a row through it, so that the first request does not pay for that.

        Raises:
            GraftworkError: If the model does not run.
        """
        # As a request of all tasks would ask, through the same queue.
        for future in self.batcher.submit((self._main, self.tasks), self.reader.blank()):
            future.result()

    async def finish_rows(self, rows: list[Any]) -> list[Any]:
        """Do what is slow to checked rows (decoding of pictures) in a thread of a small pool."""
        # A thread would cost more than the rows.
        if not self.reader.is_slow:
            return rows
        return await self.threads.run(functools.partial(self.reader.finish, rows))

    async def answer(self, ask: Ask, rows: Sequence[Any], *, started: float | None = None) -> bytes:
        """Return the answer for checked rows, as JSON.

        Args:
            ask: What is wanted.
            rows: What :meth:`finish_rows` returned, at least one.
            started: ``time.perf_counter()`` at the beginning of the request; now by default.

        Raises:
            RequestError: 422 if no configuration fits or the rows cannot be encoded, 503 if the server is stopping or a model
                file is damaged.
        """
        started = time.perf_counter() if started is None else started
        # Before anything is queued: a budget that nothing fits is refused at once.
        configuration = self._configuration(ask)
        around = {} if ask.interval is None else self._intervals(ask.interval, ask.tasks)
        lane: Lane = (configuration.file if configuration else self._main, ask.tasks)
        try:
            futures = [asyncio.wrap_future(future) for future in self.batcher.submit(lane, rows)]
            # Parts of one large request; they may have run in different batches.
            parts: list[Answer] = await asyncio.gather(*futures)
        except DataError as error:
            if isinstance(error, FileFormatError):
                raise RequestError(503, f"The model cannot be loaded: {error}") from error
            raise RequestError(
                422, "The rows cannot be encoded.", Problem("", str(error), "rows like those of the training data")
            ) from error
        except GraftworkError as error:
            raise RequestError(503, str(error), retry_after=5) from error
        size = sum(value.size for part in parts for value in part.values.values())
        # Known by now: the lane has opened, which counts its costs.
        cost, notes = self._lane_costs.get(lane, _Cost(None, None)), self.reader.notes(rows)
        work = functools.partial(self._render, ask, configuration, cost, parts, around, notes, started)
        return await self.threads.run(work) if size > _MUCH else work()

    def _render(
        self,
        ask: Ask,
        configuration: Configuration | None,
        cost: _Cost,
        parts: Sequence[Answer],
        around: Mapping[str, NDArray[np.float64]],
        notes: Sequence[str],
        started: float,
    ) -> bytes:
        values = {task: np.concatenate([part.values[task] for part in parts]) for task in ask.tasks}
        rows = len(values[ask.tasks[0]])
        self.metrics.count_rows(rows, rows * (cost.flops or 0.0), rows * cost.saved_flops)
        content = {
            "predictions": prediction_rows(
                [self.specs[task] for task in ask.tasks], values, probabilities=ask.probabilities, around=around
            ),
            "tasks": list(ask.tasks),
            "cost": cost.json(),
            "configuration": configuration.widths() if configuration else None,
            "milliseconds": {
                "total": round(1e3 * (time.perf_counter() - started), 3),
                "queue": round(1e3 * max(part.queue_seconds for part in parts), 3),
                "model": round(1e3 * max(part.model_seconds for part in parts), 3),
            },
            "batch_rows": max(part.batch_rows for part in parts),
            "notes": list(notes),
        }
        return to_json(content)

    def _intervals(self, level: float, tasks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        # Classes have none, which is no fault of a request that names an interval for whatever is a number.
        numbers = [task for task in tasks if task in self.predictor.tasks_with_intervals]
        return self.predictor.interval_widths(level, numbers) if numbers else {}

    def stop(self) -> None:
        """Refuse new requests from now on; those in work are finished."""
        self.is_stopping = True

    def close(self) -> None:
        """Finish what was accepted and end all threads."""
        self.is_stopping = True
        self.batcher.close()
        self.threads.close()

    def _configuration(self, ask: Ask) -> Configuration | None:
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

    def _cost(self, lane: Lane, model: OnnxModel) -> _Cost:
        path, tasks = lane
        if path == self._main:
            return _Cost(self.costs.flops(tasks), self.costs.total) if self.costs else _Cost(None, None)
        assert self.controls is not None
        configuration = next(item for item in self.controls.configurations if item.file == path)
        costs = graph_costs(model.content, model.outputs)
        # The listed FLOPs are those of all tasks; the graph says which share these need.
        return _Cost(configuration.flops * (costs.share(tasks) if costs else 1.0), self.controls.full_flops)

    def _count_batch(self, lane: Lane, rows: int, seconds: float) -> None:
        tasks = lane[1]
        # Three kinds of labels: sets of tasks as labels would grow without end.
        self.metrics.count_batch(
            "all" if len(tasks) == len(self.specs) else tasks[0] if len(tasks) == 1 else "several", rows, seconds
        )


def _reader(predictor: Predictor, limits: ServeLimits) -> RowReader:
    encoder = predictor.encoder
    if any(spec.kind == "image" for spec in predictor.inputs.values()):
        require("PIL.Image", extra="serve", purpose="Serving a model of pictures")
    if isinstance(encoder, JointEncoder):
        return JointReader(encoder, limits)
    reader: RowReader = load_part(input_kind(encoder.kind).reader)(encoder, limits)
    return reader

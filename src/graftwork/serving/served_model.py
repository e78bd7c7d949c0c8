"""One model as requests see it: its rows and tasks, what it can be asked, and how its predictions become an answer. No torch."""

from __future__ import annotations

import asyncio
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError, FileFormatError, GraftworkError
from graftwork.core.records import TaskSpec
from graftwork.serving.answers import prediction_rows, to_json
from graftwork.serving.asking import Ask
from graftwork.serving.batching import Answer, Batcher
from graftwork.serving.controls import Configuration, Controls
from graftwork.serving.costs import GraphCosts
from graftwork.serving.limits import ServeLimits
from graftwork.serving.metrics import ServerMetrics
from graftwork.serving.problems import Problem, RequestError
from graftwork.serving.reading import RowReader
from graftwork.serving.threads import Threads

__all__ = ["AskCost", "ServedModel"]

_MUCH = 20_000
"""Numbers of an answer from which on writing it as JSON is left to another thread."""


@dataclass(frozen=True, slots=True)
class AskCost:
    """FLOPs per row of what is asked; None if they are not known."""

    flops: float | None
    full: float | None

    @property
    def saved_flops(self) -> float:
        """Operations that asking for less has saved."""
        return max(0.0, self.full - self.flops) if self.flops is not None and self.full is not None else 0.0

    def json(self) -> dict[str, Any]:
        """Return the JSON form; ``saved`` is a share of the full model."""
        return {
            "flops": self.flops,
            "full_flops": self.full,
            "saved": round(self.saved_flops / self.full, 4) if self.full else None,
        }


class ServedModel(ABC):
    """What the application asks of a model."""

    name: str
    plan: str
    """Name of the plan whose model this is; empty if the model does not say."""
    created: str
    """When it was written, ISO 8601 in UTC; empty if that is not known."""
    kind: str
    """Kind of its only input, or ``joint``."""
    specs: dict[str, TaskSpec]
    reader: RowReader
    limits: ServeLimits
    batcher: Batcher
    threads: Threads
    metrics: ServerMetrics
    costs: GraphCosts | None = None
    controls: Controls | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the model's outputs."""
        return tuple(self.specs)

    @property
    def smallest_budget(self) -> float | None:
        """Share of the smallest configuration; None if the model is not controllable."""
        return None

    @property
    def widest_interval(self) -> float | None:
        """The largest share of new rows that an interval can hold; None if the model has no intervals."""
        return None

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
        configuration = self.configuration(ask)
        around = {} if ask.interval is None else self.intervals(ask.interval, ask.tasks)
        lane = self.lane(ask, configuration)
        try:
            futures = [asyncio.wrap_future(future) for future in self.batcher.submit(lane, self.queued(ask, rows))]
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
        cost, notes = self.cost(lane), self.reader.notes(rows)
        work = functools.partial(self._render, ask, configuration, cost, parts, around, notes, started)
        return await self.threads.run(work) if size > _MUCH else work()

    @abstractmethod
    def lane(self, ask: Ask, configuration: Configuration | None) -> Hashable:
        """Return the lane of the batcher that answers a request."""

    def queued(self, ask: Ask, rows: Sequence[Any]) -> Sequence[Any]:
        """Return rows as they wait in the lane."""
        return rows

    def configuration(self, ask: Ask) -> Configuration | None:
        """Return the sub-network that answers; None is the full model."""
        return None

    def cost(self, lane: Hashable) -> AskCost:
        """Return what a row costs."""
        return AskCost(None, None)

    def intervals(self, level: float, tasks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return how far the ends of intervals are from predictions, by task."""
        return {}

    def _render(
        self,
        ask: Ask,
        configuration: Configuration | None,
        cost: AskCost,
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

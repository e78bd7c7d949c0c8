"""What a server has once, however many models it serves: limits, threads, the queue, counts, and how it stops. No torch."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from graftwork.serving.batching import Batcher
from graftwork.serving.limits import ServeLimits
from graftwork.serving.metrics import ServerMetrics
from graftwork.serving.served_model import ServedModel
from graftwork.serving.threads import Threads

__all__ = ["Service"]


class Service(ABC):
    """Behind one application.

    Args:
        limits: Of requests and batches.
        batcher: What runs the batches.
        shares: Share of the full model's FLOPs that each task needs alone; empty if it is not known.
    """

    title: str
    """What is served, in a word: the name of a run or of a backbone."""
    batcher: Batcher
    threads: Threads
    """For what would hold up all other requests."""
    metrics: ServerMetrics
    limits: ServeLimits

    def __init__(self, limits: ServeLimits, batcher: Batcher, shares: Mapping[str, float]) -> None:
        self.limits, self.batcher, self.threads = limits, batcher, Threads()
        self.requests_in_work = 0
        self.is_stopping = False
        """Whether new requests are to be refused; set by :meth:`stop`."""
        self.metrics = ServerMetrics(shares, lambda: self.batcher.num_waiting, lambda: self.batcher.num_lanes)

    @property
    @abstractmethod
    def models(self) -> Mapping[str, ServedModel]:
        """The models by name; empty if there is one alone, which needs none (:attr:`only_model`)."""

    @property
    @abstractmethod
    def only_model(self) -> ServedModel | None:
        """The one model; None if there are several."""

    @abstractmethod
    def warm_up(self) -> None:
        """Run a row, so that the first request does not pay for what is done once.

        Raises:
            GraftworkError: If a model does not run.
        """

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

    def stop(self) -> None:
        """Refuse new requests from now on; those in work are finished."""
        self.is_stopping = True

    def close(self) -> None:
        """Finish what was accepted and end all threads."""
        self.is_stopping = True
        self.batcher.close()
        self.threads.close()

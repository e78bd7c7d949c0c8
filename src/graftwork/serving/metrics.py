"""Counts and times of a server in the text form that Prometheus reads. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftwork.core.optional import require

__all__ = ["ServerMetrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ServerMetrics:
    """The metrics of one server, in a registry of their own.

    Args:
        shares: Share of the full model's FLOPs that each task needs alone; empty if it is not known.
        waiting: Returns the requests that wait for a batch.
        lanes: Returns the open sessions.
    """

    def __init__(self, shares: Mapping[str, float], waiting: Callable[[], int], lanes: Callable[[], int]) -> None:
        self._library = require("prometheus_client", extra="serve", purpose="Serving")
        # Its own registry: the global one refuses a second server in one process.
        self.registry: Any = self._library.CollectorRegistry()
        self._requests = self._counter("requests", "Requests by path and status", ["path", "status"])
        self._request_seconds = self._histogram("request_seconds", "From the first byte to the answer", _SECONDS)
        self._rows = self._counter("rows", "Rows predicted")
        self._batch_rows = self._histogram("batch_rows", "Rows of a batch", _ROWS)
        self._model_seconds = self._histogram("model_seconds", "Encoding and model, per batch", _SECONDS, ["tasks"])
        self._flops = self._counter("flops", "Floating-point operations of the rows predicted")
        self._saved = self._counter("saved_flops", "Floating-point operations that asking for less has saved")
        self.in_work = self._gauge("requests_in_work", "Requests that are being read, queued or computed")
        self._gauge("requests_waiting", "Requests that wait for a batch").set_function(waiting)
        self._gauge("sessions_open", "Sets of tasks with a session of their own").set_function(lanes)
        self._connections = self._gauge("connections", "Open connections")
        self._closed = self._counter("connections_closed", "Connections that the server closed early, by reason", ["reason"])
        share = self._gauge("task_flops_share", "Share of the full model's operations that a task needs alone", ["task"])
        for task, value in shares.items():
            share.labels(task).set(value)

    def _counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Any:
        return self._library.Counter(f"graftwork_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Any:
        return self._library.Gauge(f"graftwork_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Any:
        return self._library.Histogram(f"graftwork_{name}", help_text, labels, buckets=buckets, registry=self.registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(path, str(status)).inc()
        # Pages and health checks would hide how long predictions take.
        if path.endswith("/predict"):
            self._request_seconds.observe(seconds)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Show the number of open connections that ``count`` returns."""
        self._connections.set_function(count)

    def count_closed(self, reason: str) -> None:
        """Count a connection that was closed because its client was slow, or because there were too many."""
        self._closed.labels(reason).inc()

    def count_batch(self, tasks: str, rows: int, seconds: float) -> None:
        """Count a batch; ``tasks`` is ``all``, ``several`` or the name of one."""
        self._batch_rows.observe(rows)
        self._model_seconds.labels(tasks).observe(seconds)

    def count_rows(self, rows: int, flops: float, saved: float) -> None:
        """Count predicted rows and what they cost."""
        self._rows.inc(rows)
        self._flops.inc(flops)
        self._saved.inc(saved)

    def text(self) -> bytes:
        """Return the exposition."""
        return bytes(self._library.generate_latest(self.registry))

"""Listeners that send a run to TensorBoard or MLflow, for ``on_event`` of ``fit`` and ``compare``.

Both write what every training scored on validation rows when it ended, at the steps that it had made, and the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.optional import require

__all__ = ["MlflowTracker", "TensorBoardTracker"]


def _scores(event: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield task, metric and value of a training that ended well."""
    if event.get("event") != "job-end" or event.get("status") != "ok":
        return
    for task, metrics in (event.get("validation") or {}).items():
        for metric, value in metrics.items():
            if value is not None:  # a metric that these rows do not define
                yield task, metric, float(value)


def _safe(name: str) -> str:
    """Return a name in the letters that files and metrics may have."""
    return re.sub(r"[^\w. -]", "_", name)


class TensorBoardTracker:
    """Writes event files: a chart for each task and metric, in it a line for each plan and seed.

    Args:
        folder: Where the files go; ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.

    Example:
        >>> import graftwork as gw
        >>> gw.fit("emoji", on_event=TensorBoardTracker("logs"))  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        require("tensorboard", extra="tensorboard", purpose="TensorBoardTracker")
        self.folder = Path(folder)
        self._writers: dict[str, Any] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""
        for task, metric, value in _scores(event):
            writer = self._writer(f"{event['plan']}-s{event.get('seed') or 0}")
            writer.add_scalar(f"{_safe(task)}/{_safe(metric)}", value, event.get("steps") or 0)
        if event.get("event") == "done":
            self._writer("verdict").add_text("verdict", "\n\n".join(event["verdict"]["sentences"]))
            self.close()

    def close(self) -> None:
        """Finish the files; the end of a run does it, too."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[name] = SummaryWriter(str(self.folder / _safe(name)))
        return self._writers[name]


class MlflowTracker:
    """Logs into MLflow's active run, or into one of its own that ends with the run here.

    Raises:
        MissingDependencyError: If MLflow is not installed.

    Example:
        >>> import graftwork as gw
        >>> gw.fit("emoji", on_event=MlflowTracker())  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._mlflow = require("mlflow", extra="mlflow", purpose="MlflowTracker")
        self._is_own = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""
        kind = event.get("event")
        if kind == "suite":
            if self._mlflow.active_run() is None:
                self._mlflow.start_run(run_name=str(event["name"]))
                self._is_own = True
            tasks = {f"kind of {_safe(task['name'])}": task["kind"] for task in event["tasks"]}
            self._mlflow.log_params({"suite": event["name"], "rows": event["rows"], **tasks})
        prefix = f"{_safe(str(event.get('plan')))}-s{event.get('seed') or 0}"
        metrics = {f"{prefix}/{_safe(task)}/{_safe(metric)}": value for task, metric, value in _scores(event)}
        if metrics:
            self._mlflow.log_metrics(metrics, step=event.get("steps") or 0)
        if kind == "done":
            self._mlflow.set_tags({"choice": event["verdict"]["choice"], "verdict": " ".join(event["verdict"]["sentences"])})
            self.close()

    def close(self) -> None:
        """End the run in MLflow if it was begun here; the end of a run does it, too."""
        if self._is_own:
            self._mlflow.end_run()
            self._is_own = False

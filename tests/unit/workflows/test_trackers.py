"""What TensorBoard and MLflow get of a run."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import MissingDependencyError
from graftwork.workflows.trackers import MlflowTracker, TensorBoardTracker

pytest.importorskip("torch")

END = {"event": "job-end", "job": "final-a/b-s1", "plan": "a/b", "seed": 1, "status": "ok", "steps": 40}
EVENTS: list[dict[str, Any]] = [
    {"event": "suite", "name": "houses", "rows": 9, "tasks": [{"name": "price=1", "kind": "regression"}]},
    {"event": "job-start", "job": "final-a/b-s1", "plan": "a/b", "seed": 1},
    {"event": "progress", "job": "final-a/b-s1", "step": 4},
    {**END, "validation": {"price=1": {"rmse": 2.5, "r2": None}}},
    {**END, "status": "failed", "validation": {"price=1": {"rmse": 7.0}}},
    {"event": "job-end", "job": "estimate-a", "plan": "a/b", "seed": 0, "status": "ok"},
    {"event": "done", "verdict": {"choice": "a/b", "sentences": ["Use `a/b`.", "It is open."]}},
]


class Writer:
    """What is written, by folder."""

    written: list[tuple[Any, ...]]

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written.append((self.name, tag, value, step))

    def add_text(self, tag: str, text: str) -> None:
        self.written.append((self.name, tag, text))

    def close(self) -> None:
        self.written.append((self.name, "closed"))


def test_tensorboard_gets_a_line_for_each_plan_and_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Writer.written = []
    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tracker = TensorBoardTracker(tmp_path)
    for event in EVENTS:
        tracker(event)
    assert Writer.written == [
        ("a_b-s1", "price_1/rmse", 2.5, 40),
        ("verdict", "verdict", "Use `a/b`.\n\nIt is open."),
        ("a_b-s1", "closed"),
        ("verdict", "closed"),
    ]


class Mlflow(types.ModuleType):
    """What MLflow is asked."""

    def __init__(self, active: object) -> None:
        super().__init__("mlflow")
        self.active, self.calls = active, list[tuple[Any, ...]]()

    def active_run(self) -> object:
        return self.active

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *values, **named: self.calls.append((name, *values, *named.values()))


@pytest.mark.parametrize("active", [None, object()])
def test_mlflow_gets_metrics_and_keeps_a_run_of_the_caller_open(monkeypatch: pytest.MonkeyPatch, active: object) -> None:
    mlflow = Mlflow(active)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    tracker = MlflowTracker()
    for event in EVENTS:
        tracker(event)
    tracker.close()
    own = [("log_params", {"suite": "houses", "rows": 9, "kind of price_1": "regression"})]
    own += [("log_metrics", {"a_b-s1/price_1/rmse": 2.5}, 40)]
    own += [("set_tags", {"choice": "a/b", "verdict": "Use `a/b`. It is open."})]
    assert mlflow.calls == (own if active else [("start_run", "houses"), *own, ("end_run",)])


@pytest.mark.parametrize(("name", "build"), [("tensorboard", lambda: TensorBoardTracker("logs")), ("mlflow", MlflowTracker)])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, name: str, build: Any) -> None:
    monkeypatch.setattr("importlib.import_module", _missing(name))
    with pytest.raises(MissingDependencyError, match=rf"graftwork\[{name}\]"):
        build()


def _missing(name: str) -> Any:
    def fail(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fail

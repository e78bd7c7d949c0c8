"""A tiny trained run on disk, and the model behind it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.table import TableEncoder
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.shared_model import SharedModel

if str(Path(__file__).parent) not in sys.path:  # for run_builder
    sys.path.insert(0, str(Path(__file__).parent))

from app_client import folders, serve  # noqa: F401  (fixtures)


class TwoLayer(SharedModel):
    """Numbers and levels of a table, one hidden layer, one head per task."""

    def __init__(self, tasks: Sequence[TaskSpec], num_numeric: int, cardinalities: Sequence[int], width: int = 16) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.levels = nn.ModuleList(nn.Embedding(size, 4) for size in cardinalities)
        self.trunk = nn.Sequential(nn.Linear(num_numeric + 4 * len(cardinalities), width), nn.ReLU())
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, task.num_outputs)) for task in tasks
        )

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        parts = [inputs["numeric"], *(level(inputs["categorical"][:, i]) for i, level in enumerate(self.levels))]
        return self.trunk(torch.cat(parts, dim=1))

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        asked = self.task_names if tasks is None else tasks
        return {name: self.heads[self.task_names.index(name)](representation) for name in asked}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        return self.heads[self.task_names.index(task)].parameters()


TASKS = (
    TaskSpec(name="churn", kind="binary", size=1, classes=("no", "yes")),
    TaskSpec(name="plan", kind="multiclass", size=3, classes=("basic", "plus", "pro")),
    TaskSpec(name="mood", kind="ordinal", size=4, classes=("1", "2", "3", "4")),
    TaskSpec(name="tags", kind="multilabel", size=2, classes=("a", "b")),
    TaskSpec(name="spend", kind="regression", size=1, center=(2000.0,), scale=(300.0,)),
    TaskSpec(name="colour", kind="regression", size=2, columns=("red", "green"), center=(1.0, 2.0), scale=(1.0, 5.0)),
)


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": draw.normal(40, 10, 60).round(1),
            "income": draw.normal(0, 1, 60),
            "city": draw.choice(["Oslo", "Rome", "Lima"], 60),
        }
    )


@pytest.fixture(scope="session")
def table_model(frame: pd.DataFrame) -> tuple[TwoLayer, TableEncoder]:
    torch.manual_seed(0)
    encoder = TableEncoder.fit(frame, list(frame.columns))
    sizes = encoder.sizes()
    return TwoLayer(TASKS, sizes["num_numeric"], sizes["cardinalities"]).eval(), encoder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, table_model: tuple[TwoLayer, TableEncoder]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model, encoder = table_model
    export_onnx(model, TASKS, encoder.transform(frame.head(4)), folder / "model.onnx")
    (folder / "model").mkdir()
    config = {"encoder": encoder.state(), "tasks": [task.to_json() for task in TASKS], "outputs": [task.name for task in TASKS]}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder

"""Sub-networks of a controllable model as files: one ONNX graph each, and an index that says what each costs.

``controls.json`` lies beside ``model.onnx``; ``graftwork serve`` reads it and picks a file for a budget and the importance of
the tasks: ``{"format": ..., "configurations": [{"encoder": 0.5, "decoders": {"depth": 1.0}, "flops": 2.1e6, "parameters": 9000,
"file": "..."}]}``. FLOPs are per sample, files are relative to the index. The full network is the first one listed; its file is
``model.onnx`` itself if that is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.files import write_json
from graftwork.core.records import TaskSpec
from graftwork.evaluation.probes import count_parameters
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.controllable import Configuration, ControllableModel

__all__ = ["BUDGETS", "FORMAT", "INDEX", "export_configurations", "standard_grid"]

FORMAT = "graftwork-controls-1"
INDEX = "controls.json"
FOLDER = "configurations"
BUDGETS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the full network's FLOPs that the standard grid covers."""
IMPORTANT = 4.0
"""Weight of the task that matters most, in the standard grid; the others weigh 1."""


def standard_grid(model: ControllableModel) -> list[Configuration]:
    """Return the configurations for :data:`BUDGETS`, with all tasks alike and with each task in turn more important; no doubles.

    Budgets below the smallest configuration are left out; the full configuration is the first.
    """
    importances: list[dict[str, float]] = [{}]
    if len(model.task_names) > 1:
        importances += [{name: IMPORTANT} for name in model.task_names]
    return _unique([model.full, *_feasible(model, importances)])


def _feasible(model: ControllableModel, importances: Sequence[Mapping[str, float]]) -> Iterator[Configuration]:
    # Largest first: where two budgets give one configuration, its place in the list is that of the larger one.
    for budget in sorted(BUDGETS, reverse=True):
        for importance in importances:
            try:
                yield model.choose(budget=budget, importance=importance)
            except ConfigError:  # no configuration fits the budget
                continue


def _unique(configurations: Sequence[Configuration]) -> list[Configuration]:
    return list({configuration.key(): configuration for configuration in configurations}.values())


def export_configurations(
    model: ControllableModel,
    tasks: Sequence[TaskSpec],
    example_inputs: Mapping[str, Tensor | np.ndarray],
    folder: str | Path,
    grid: Sequence[Configuration] | None = None,
) -> list[dict[str, Any]]:
    """Write the sliced networks of a few configurations and their index, which is written last.

    Args:
        model: The trained model; it is not changed.
        tasks: Tasks to export.
        example_inputs: Rows on which every graph is checked against PyTorch.
        folder: Where ``controls.json`` goes; graphs go to ``configurations/`` in it.
        grid: What to write; None takes :func:`standard_grid`. The full configuration is always in.

    Returns:
        The entries of the index.

    Raises:
        GraftworkError: If a graph cannot be made or computes something else.
    """
    folder = Path(folder)
    entries: list[dict[str, Any]] = []
    for number, configuration in enumerate(_unique([model.full, *(standard_grid(model) if grid is None else grid)])):
        network = model.slice(configuration).eval()
        flops = model.flops(configuration)
        share = flops / model.flops(model.full)
        # The full network was exported already; a second copy would only cost space.
        if configuration.key() == model.full.key() and (folder / "model.onnx").is_file():
            file = "model.onnx"
        else:
            file = f"{FOLDER}/model@{share:.3f}-{number:02d}.onnx"
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            export_onnx(network, tasks, example_inputs, folder / file)
        described = {"flops": flops, "share": share, "parameters": count_parameters(network).total, "file": file}
        entries.append({**configuration.to_json(), **described})
    # Last: an index never names a file that is not there yet.
    write_json(folder / INDEX, {"format": FORMAT, "configurations": entries})
    return entries

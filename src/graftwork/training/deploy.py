"""The deployable model: weights, a description that rebuilds it, and an ONNX graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from graftwork import __version__
from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json, write_bytes, write_json
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.loader import inputs_to_torch
from graftwork.data.suite import Suite
from graftwork.interfaces.controllable import ControllableModel
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.lora import fold_layers
from graftwork.training.assembly import assemble
from graftwork.training.controls import export_configurations
from graftwork.training.export import export_onnx, output_names

__all__ = ["FORMAT", "load_model", "write_model"]

FORMAT = "graftwork-model-1"
EXAMPLE_ROWS = 16


def write_model(model: SharedModel, suite: Suite, folder: str | Path, described: Mapping[str, Any], *, stored: bool) -> float:
    """Write ``model.safetensors``, ``config.json`` and ``model.onnx``; of a controllable model also graphs of its smaller configurations.

    Args:
        model: Takes the suite's inputs.
        suite: Gives tasks, encoder, and the rows on which the graph is checked.
        folder: Made if absent.
        described: ``plan``, ``seed``, ``step`` and ``backbone``, for the description.
        stored: Whether ``model`` has a backbone in front of a model of stored features.

    Returns:
        The largest difference between the graph and PyTorch (see :func:`graftwork.training.export.export_onnx`).

    Raises:
        GraftworkError: If the graph cannot be made or computes something else.
        StorageError: If the folder cannot be written.
    """
    folder = Path(folder)
    model.eval()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    rows = np.asarray(suite.splits["val"] if len(suite.splits["val"]) else suite.splits["train"], dtype=np.int64)[:EXAMPLE_ROWS]
    deployed: SharedModel = copy.deepcopy(model)
    if isinstance(deployed, ControllableModel):
        deployed = deployed.slice(deployed.full)  # whatever it is set to now, the graph is that of the full network
    fold_layers(deployed)  # the graph has the base's structure and speed; the saved weights keep adapters apart
    examples = inputs_to_torch(suite.inputs, rows)
    difference = export_onnx(deployed, suite.tasks, examples, folder / "model.onnx")
    if isinstance(model, ControllableModel):
        export_configurations(model, suite.tasks, examples, folder)
    config = {
        "format": FORMAT,
        "version": __version__,
        "name": suite.name,
        "modality": suite.modality,
        **described,
        "stored_features": stored,
        "tasks": [task.to_json() for task in suite.tasks],
        "inputs": {name: {"dtype": str(array.dtype), "shape": list(array.shape[1:])} for name, array in suite.inputs.items()},
        "outputs": output_names(suite.task_names, list(suite.inputs)),
        "input_sizes": dict(suite.input_sizes),
        "encoder": dict(suite.encoder),
        "onnx_difference": difference,
    }
    write_json(folder / "config.json", config)
    return difference


def load_model(folder: str | Path) -> tuple[SharedModel, tuple[TaskSpec, ...], dict[str, Any]]:
    """Rebuild a model that :func:`write_model` wrote.

    Returns:
        The model in evaluation mode, its tasks, and the description.

    Raises:
        FileFormatError: If the description or the weights are damaged or of another format.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise FileFormatError(f"{folder / 'config.json'} has format {found!r}; expected {FORMAT!r}. Export the model again.")
    tasks = tuple(TaskSpec.from_json(task) for task in config["tasks"])
    plan = Plan.from_json(config["plan"])
    built = assemble(
        plan,
        tasks,
        config["modality"],
        config["input_sizes"],
        backbone=config["backbone"],
        store_features=config["stored_features"],
    )
    model = built.deployable(built.model)
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        model.load_state_dict(tensors)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise FileFormatError(
            f"{folder / 'model.safetensors'} does not fit its config.json: {error}. Export the model again."
        ) from error
    return model.eval(), tasks, config

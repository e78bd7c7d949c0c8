"""The deployable model: weights, a description that rebuilds it, and an ONNX graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from graftwork.core.errors import StorageError
from graftwork.core.files import write_bytes, write_json
from graftwork.core.folders import remove_own
from graftwork.core.input_spec import write_input_specs
from graftwork.core.version import __version__
from graftwork.data.loader import inputs_to_torch
from graftwork.data.suite import Suite
from graftwork.export.configurations import FOLDER as CONFIGURATIONS
from graftwork.export.configurations import INDEX, export_configurations
from graftwork.export.delta_files import delta_files
from graftwork.export.onnx_model import export_onnx
from graftwork.export.written_graph import output_names
from graftwork.interfaces.controllable import ControllableModel
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.foldable import fold_layers

__all__ = ["FORMAT", "remove_optional", "write_model"]

FORMAT = "graftwork-model-1"
EXAMPLE_ROWS = 16


def remove_optional(folder: str | Path) -> None:
    """Remove what only some models have from the folder of an earlier model: the index and graphs of smaller configurations, and
    what tuning added. A new model without them would be served and tuned on with those of the old one.

    Args:
        folder: Of a model; it may be absent. Everything else in it stays.

    Raises:
        StorageError: If a file cannot be removed.
    """
    folder = Path(folder)
    graphs = (path.relative_to(folder).as_posix() for path in sorted((folder / CONFIGURATIONS).glob("model@*.onnx")))
    # The index first: it never names a file that is not there.
    for name in (INDEX, *graphs, *(path.name for path in delta_files(folder))):
        if not remove_own(folder, name):
            raise StorageError(
                f"{folder / name} belongs to an earlier model and cannot be removed. Write the model into another folder, or remove "
                "the file."
            )


def write_model(model: SharedModel, suite: Suite, folder: str | Path, described: Mapping[str, Any], *, stored: bool) -> float:
    """Write ``model.safetensors``, ``config.json`` and ``model.onnx``; of a controllable model also graphs of its smaller
    configurations.

    Of an earlier model in the folder nothing stays that would be taken for a part of this one; see :func:`remove_optional`.

    Args:
        model: Takes the suite's inputs.
        suite: Gives tasks, encoder, and the rows on which the graph is checked.
        folder: Made if absent.
        described: ``plan``, ``seed``, ``step`` and ``backbone``, for the description.
        stored: Whether ``model`` has a backbone in front of a model of stored features.

    Returns:
        The largest difference between the graph and PyTorch (see :func:`graftwork.export.onnx_model.export_onnx`).

    Raises:
        GraftworkError: If the graph cannot be made or computes something else.
        StorageError: If the folder cannot be written, or what an earlier model left cannot be removed.
    """
    folder = Path(folder)
    remove_optional(folder)
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    rows = np.asarray(suite.splits["val"] if len(suite.splits["val"]) else suite.splits["train"], dtype=np.int64)[:EXAMPLE_ROWS]
    # Folding below changes layers in place, and the caller's model must stay as it is.
    deployed: SharedModel = copy.deepcopy(model).eval()
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
        **described,
        "stored_features": stored,
        "tasks": [task.to_json() for task in suite.tasks],
        "inputs": {name: {"dtype": str(array.dtype), "shape": list(array.shape[1:])} for name, array in suite.inputs.items()},
        "outputs": output_names(suite.task_names, list(suite.inputs)),
        "input_specs": write_input_specs(suite.input_specs),
        "onnx_difference": difference,
    }
    write_json(folder / "config.json", config)
    return difference

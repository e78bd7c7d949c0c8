"""Rebuilds a deployable model from its folder: the plan in ``config.json``, the weights in ``model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json
from graftwork.core.input_spec import read_input_specs
from graftwork.core.records import Plan, TaskSpec
from graftwork.export.model_folder import FORMAT
from graftwork.interfaces.shared_model import SharedModel
from graftwork.training.assembly import assemble

__all__ = ["load_model"]


def load_model(folder: str | Path) -> tuple[SharedModel, tuple[TaskSpec, ...], dict[str, Any]]:
    """Rebuild a model that :func:`graftwork.export.model_folder.write_model` wrote.

    Returns:
        The model in evaluation mode, its tasks, and the description.

    Raises:
        FileFormatError: If the description or the weights are damaged or of another format.
        ComponentError: If the plan names a component of a package that is not allowed (see :mod:`graftwork.core.components`).
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise FileFormatError(f"{folder / 'config.json'} has format {found!r}; expected {FORMAT!r}. Export the model again.")
    tasks = tuple(TaskSpec.from_json(task) for task in config["tasks"])
    plan = Plan.from_json(config["plan"])
    # Before anything is built: a folder from elsewhere can name any class.
    for _, _, component in plan.components():
        component.check()
    built = assemble(
        plan,
        tasks,
        read_input_specs(config),
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

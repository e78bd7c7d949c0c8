"""Rebuilds a deployable model from its folder: the plan in ``config.json``, the weights in ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors.torch

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json
from graftwork.core.records import TaskSpec
from graftwork.export.model_folder import FORMAT
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.named_by_folder import check_named_by_folder, is_given
from graftwork.training.assembly import assemble
from graftwork.training.description import read_description

__all__ = ["load_model"]


def load_model(
    folder: str | Path, *, backbone: str | Iterable[str] = ""
) -> tuple[SharedModel, tuple[TaskSpec, ...], dict[str, Any]]:
    """Rebuild a model that :func:`graftwork.export.model_folder.write_model` wrote.

    Args:
        folder: The folder.
        backbone: Names of backbones that the caller vouches for. Of those that the folder alone names, none is read from a folder
            elsewhere or asked of a hub (see :mod:`graftwork.nn.backbones.named_by_folder`).

    Returns:
        The model in evaluation mode, its tasks, and the description.

    Raises:
        FileFormatError: If the description or the weights are missing, damaged or of another format.
        ComponentError: If the plan names a component of a package that is not allowed (see :mod:`graftwork.core.components`).
        ConfigError: If the description names a backbone in a folder elsewhere that the caller has not named.
    """
    folder = Path(folder)
    try:
        config = read_json(folder / "config.json")
    except FileNotFoundError as error:
        raise FileFormatError(
            f"{folder} is no folder of a model: it has no config.json, or a link that leads nowhere. Export the model again."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise FileFormatError(f"{folder / 'config.json'} has format {found!r:.80}; expected {FORMAT!r}. Export the model again.")
    described = read_description(config, folder / "config.json", "Export the model again.")
    tasks, plan = described.tasks, described.plan
    # Before anything is built: a folder from elsewhere can name any class.
    for _, _, component in plan.components():
        component.check()
    if plan.source == "pretrained":
        check_named_by_folder(
            described.backbone,
            folder,
            given=backbone,
            remedy="If it is yours, name it as well: in the list of --sources, or as `backbone` of load_model.",
        )
    built = assemble(
        plan,
        tasks,
        described.inputs,
        backbone=described.backbone,
        store_features=described.stored_features,
        local_only=not is_given(described.backbone, backbone),
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

"""A tuned model as what is added to its backbone: the delta and the heads, without the backbone's own weights.

The folder holds ``config.json`` (what rebuilds the model), ``heads.safetensors`` (what belongs to the tasks) and the delta of the
backbone. It is as small as what was learned; the backbone is built by its name and recognised by its fingerprint.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import write_bytes, write_json
from graftwork.core.records import TaskSpec
from graftwork.export.delta_files import delta_files
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.joined import JoinedBackbone
from graftwork.nn.backbones.named_by_folder import check_named_by_folder
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.module_delta import load_delta
from graftwork.training.assembly import FeatureInput, assemble
from graftwork.training.model_loading import load_model
from graftwork.training.tuned_folder import CONFIG_FILE, FORMAT, HEADS_FILE, describe_tuned, read_tuned_config

__all__ = ["FORMAT", "load_tuned", "write_tuned"]


def write_tuned(model_folder: str | Path, folder: str | Path, *, backbone: str = "") -> list[Path]:
    """Write the small folder of a model that was exported after tuning a pretrained backbone.

    Args:
        model_folder: What :func:`graftwork.export.model_folder.write_model` wrote, with ``delta*.safetensors`` beside it.
        folder: Made if absent.
        backbone: As for :func:`~graftwork.training.model_loading.load_model`.

    Returns:
        The files.

    Raises:
        ConfigError: If several backbones were tuned.
        FileFormatError: If the model's folder is damaged.
        StorageError: If the folder cannot be written.
    """
    model, _, config = load_model(model_folder, backbone=backbone)
    prefixes = _backbones(model)
    heads = {
        name: tensor.detach().contiguous().clone()
        for name, tensor in model.state_dict().items()
        if not any(name.startswith(f"{prefix}.") for prefix in prefixes)
    }
    folder, written, deltas = Path(folder), [], delta_files(model_folder)
    if len(deltas) > 1:
        raise ConfigError(f"{model_folder} has {len(deltas)} tuned backbones; a folder of one delta and its heads holds one.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in deltas:
        write_bytes(folder / file.name, file.read_bytes())
        written.append(folder / file.name)
    write_bytes(folder / HEADS_FILE, safetensors.torch.save(heads, metadata={"format": "pt"}))
    # Last of all: a folder with a configuration is whole.
    write_json(
        folder / CONFIG_FILE, {**config, "format": FORMAT, "backbones": prefixes, "deltas": [file.name for file in written]}
    )
    return [*written, folder / HEADS_FILE, folder / CONFIG_FILE]


def load_tuned(folder: str | Path, *, backbone: str = "") -> tuple[SharedModel, tuple[TaskSpec, ...]]:
    """Build the backbone by its name, attach the delta, and put the heads on it.

    Args:
        folder: The folder ``delta`` of a tune run.
        backbone: Name of the backbone; empty takes the one that the folder names, if it is neither a folder elsewhere nor a model that
            the hub would have to be asked for (see :mod:`graftwork.nn.backbones.named_by_folder`).

    Returns:
        The model in evaluation mode, and its tasks.

    Raises:
        FileFormatError: If the folder is damaged, or no tuned model.
        ConfigError: If the backbone is not the one that was tuned (the message names the tensors that differ), or is named by the folder
            alone and elsewhere.
        ComponentError: If it names a component of a package that is not allowed.
    """
    folder = Path(folder)
    config = read_tuned_config(folder)
    described = describe_tuned(config, folder)
    tasks, plan = described.tasks, described.plan
    for _, _, component in plan.components():
        component.check()
    if not backbone:
        check_named_by_folder(described.backbone, folder, remedy="If it is yours, say so: load_tuned(folder, backbone={name!r}).")
    tuning = plan.train.tuning
    if not config["stored_features"]:
        # The plain backbone: what its tuner would add anew is in the delta.
        plan = plan.with_train(tuning=None)
    assembly = assemble(
        plan,
        tasks,
        described.inputs,
        backbone=backbone or described.backbone,
        store_features=described.stored_features,
        local_only=not backbone,
    )
    model = assembly.deployable(assembly.model)
    try:
        trunks = [model.get_submodule(prefix) for prefix in config["backbones"]]
    except AttributeError as error:
        raise FileFormatError(f"{folder / CONFIG_FILE} is damaged: its backbones: {error!s:.200}. Tune again.") from error
    if config["deltas"] and not trunks:
        raise FileFormatError(f"{folder / CONFIG_FILE} is damaged: it names a delta and no backbone. Tune again.")
    for trunk in trunks:
        set_working_size(trunk, dict(tuning.settings).get("working_size") if tuning else None)
    model.eval()
    for name in config["deltas"]:
        load_delta(folder / name).attach(trunks[0])
    try:
        heads = safetensors.torch.load_file(folder / HEADS_FILE)
        missing = model.load_state_dict(heads, strict=False)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise FileFormatError(f"{folder / HEADS_FILE} does not fit its {CONFIG_FILE}: {error}. Tune again.") from error
    lost = [name for name in missing.missing_keys if not any(name.startswith(f"{prefix}.") for prefix in config["backbones"])]
    if lost or missing.unexpected_keys:
        raise FileFormatError(
            f"{folder / HEADS_FILE} does not fit its {CONFIG_FILE}: {[*lost, *missing.unexpected_keys][:5]}. Tune again."
        )
    return model.eval(), tasks


def _backbones(model: SharedModel) -> list[str]:
    """Return the names of the backbones in a model, outermost ones only."""
    found: list[str] = []
    for name, module in model.named_modules():
        is_trunk = isinstance(module, Backbone) and not isinstance(module, FeatureInput | JoinedBackbone)
        if is_trunk and not any(name.startswith(f"{other}.") for other in found):
            found.append(name)
    return found

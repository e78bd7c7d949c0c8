"""Image models that timm saved into a local folder: ``config.json`` with the architecture, ``model.safetensors`` with the
weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.optional import require
from graftwork.nn.backbones.source_heads import SourceHead
from graftwork.nn.backbones.timm_blocks import block_class
from graftwork.nn.backbones.timm_bridge import TimmBackbone

__all__ = ["is_timm_folder", "load_timm_folder"]


def is_timm_folder(folder: Path) -> bool:
    """Return whether a folder holds what timm's ``save_for_hf`` writes."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    return isinstance(config, dict) and isinstance(config.get("architecture"), str) and "model_type" not in config


def load_timm_folder(folder: str | Path, *, size: int | None = None) -> tuple[TimmBackbone, SourceHead | None]:
    """Return the model of a folder without its classifier, and the classifier if it is a linear one.

    Args:
        folder: See the module's docstring.
        size: Working resolution in pixels; by default the one of pretraining.

    Raises:
        ConfigError: If timm does not know the architecture.
        FileFormatError: If the weights are damaged or of another architecture.
        MissingDependencyError: If timm is not installed.
    """
    folder = Path(folder)
    timm = require("timm", extra="vision", purpose=f"The model in {folder}")
    config: dict[str, Any] = read_json(folder / "config.json")
    name, trained = str(config["architecture"]), dict(config.get("pretrained_cfg") or {})
    if not timm.is_model(name):
        raise ConfigError(f"{folder / 'config.json'} names the architecture {name!r}, which timm does not have.")
    model = timm.create_model(name, pretrained=False, num_classes=int(config.get("num_classes", 1000)))
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise FileFormatError(
            f"{folder / 'model.safetensors'} does not hold the weights of timm's {name!r}: {str(error)[:300]}. Save it again."
        ) from error
    layer, head = model.get_classifier(), None
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        head = SourceHead(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
    model.reset_classifier(0)
    data = timm.data.resolve_data_config({}, pretrained_cfg=trained or None, model=None if trained else model)
    kind = block_class(model) or TimmBackbone
    built = kind(model, size=size or int(data["input_size"][-1]), mean=data["mean"], std=data["std"])
    return built.eval(), head

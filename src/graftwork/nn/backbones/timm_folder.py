"""Image models that timm saved into a local folder: ``config.json`` with the architecture, ``model.safetensors`` with the
weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

_MOST_CLASSES = 1_000_000
_LARGEST = 1e6
"""Of a mean or deviation of colours; what is larger is damage, and may not even be a float."""
_TRAINED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "input_size": (lambda value: _are_three(value, whole=True) and all(0 < one <= 10_000 for one in value), "three sizes"),
    "mean": (lambda value: _are_three(value), "three numbers"),
    "std": (lambda value: _are_three(value) and all(one > 0 for one in value), "three numbers above 0"),
}
"""What is read of ``pretrained_cfg``."""


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
        FileFormatError: If the description or the weights are damaged, or the weights are of another architecture.
        MissingDependencyError: If timm is not installed.
    """
    folder = Path(folder)
    timm = require("timm", extra="vision", purpose=f"The model in {folder}")
    name, classes, trained = _read_config(folder / "config.json")
    if not timm.is_model(name):
        raise ConfigError(f"{folder / 'config.json'} names the architecture {name!r:.200}, which timm does not have.")
    model = timm.create_model(name, pretrained=False, num_classes=classes)
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


def _read_config(file: Path) -> tuple[str, int, dict[str, Any]]:
    """Return architecture, number of classes and what timm knows of the pretraining.

    Raises:
        FileFormatError: Naming file, key and value.
    """
    config = read_json(file)
    values = config if isinstance(config, dict) else {}
    name, classes, trained = values.get("architecture"), values.get("num_classes", 1000), values.get("pretrained_cfg") or {}
    problems = []
    if not isinstance(name, str):
        problems.append(f"architecture is {name!r:.60}; expected the name of a timm model")
    # A classifier of more classes would fill the memory before it is compared with the weights.
    if isinstance(classes, bool) or not isinstance(classes, int) or not 0 <= classes <= _MOST_CLASSES:
        problems.append(f"num_classes is {classes!r:.60}; expected a whole number from 0 to {_MOST_CLASSES:,}")
    if not isinstance(trained, dict):
        problems.append(f"pretrained_cfg is {trained!r:.60}; expected an object")
    else:
        problems += [
            f"pretrained_cfg.{key} is {trained[key]!r:.60}; expected {words}"
            for key, (fits, words) in _TRAINED.items()
            if key in trained and not fits(trained[key])
        ]
    if not isinstance(config, dict):
        problems = [f"it holds {config!r:.60}; expected an object"]
    if problems:
        raise FileFormatError(f"{file} is damaged: {'; '.join(problems)}. Save the model again with timm's save_for_hf.")
    return str(name), int(classes), trained


def _are_three(value: Any, *, whole: bool = False) -> bool:
    kinds = (int,) if whole else (int, float)
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        # NaN is not within the limits either.
        and all(isinstance(one, kinds) and not isinstance(one, bool) and -_LARGEST <= one <= _LARGEST for one in value)
    )

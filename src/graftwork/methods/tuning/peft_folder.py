"""Adapter folders of peft, read and written without peft: ``adapter_config.json`` and ``adapter_model.safetensors``.

Tensors are called ``base_model.model.<layer>.lora_A.weight`` and ``....lora_B.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import atomic_path, read_json, write_json
from graftwork.core.tensor_files import TensorFile
from graftwork.nn.lora import LowRankLayer

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "load_adapter", "save_adapter"]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
# Settings of peft that change what the tensors mean: only these values are understood.
_UNDERSTOOD: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "trainable_token_indices": ([], {}, None),
}


def save_adapter(
    layers: Mapping[str, LowRankLayer], settings: Mapping[str, Any], folder: str | Path, *, base_model: str = ""
) -> None:
    """Write an attached LoRA so that peft's ``PeftModel.from_pretrained`` reads it.

    Args:
        layers: The low-rank layers by the name of the layer that they adapt.
        settings: ``r``, ``lora_alpha``, ``lora_dropout`` and ``use_rslora`` of the adapter.
        folder: Folder to write into; created if needed, files are replaced atomically.
        base_model: Name or folder of the base model, for the reader's information.

    Raises:
        StorageError: If the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {}
    for name, layer in layers.items():
        for part, module in (("A", layer.down), ("B", layer.up)):
            weight: Any = module.weight
            tensors[f"base_model.model.{name}.lora_{part}.weight"] = weight.detach().cpu().contiguous()
    ranks = {name: layer.rank for name, layer in layers.items()}
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_model or None,
        "inference_mode": True,
        "r": settings["r"],
        "lora_alpha": settings["lora_alpha"],
        "lora_dropout": settings["lora_dropout"],
        "use_rslora": settings["use_rslora"],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        # Full names as one expression: in a list "fc" would also match "block.fc".
        "target_modules": "|".join(re.escape(name) for name in ranks),
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != settings["r"]},
        "alpha_pattern": {},
        "modules_to_save": None,
    }
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG_NAME, config)


def load_adapter(folder: str | Path) -> tuple[dict[str, Any], dict[str, int], dict[str, tuple[Tensor, Tensor]]]:
    """Read an adapter folder of peft.

    Returns:
        Settings for :class:`~graftwork.methods.tuning.lora.LoRA`, the rank of each layer, and ``(A, B)`` of each layer.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, or uses a setting that graftwork does not know.
    """
    folder = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileFormatError(
                f"{folder} is no adapter folder: {name} is missing. Give the folder that save_pretrained wrote."
            )
    config = read_json(folder / CONFIG_NAME)
    problems = [] if config.get("peft_type") == "LORA" else [f"peft_type is {config.get('peft_type')!r}; only 'LORA' can be read"]
    for key, allowed in _UNDERSTOOD.items():
        if config.get(key) not in allowed:
            problems.append(f"{key} is {config[key]!r}; only {allowed[0]!r} can be read")
    if problems:
        raise ConfigError(f"{folder / CONFIG_NAME} cannot be used.", problems)
    stored = TensorFile(folder / WEIGHTS_NAME)
    parts: dict[str, dict[str, Tensor]] = {}
    for key in stored:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ConfigError(
                f"{folder / WEIGHTS_NAME} holds the tensor {key!r}, which is no low-rank update; it cannot be used."
            )
        parts.setdefault(match["layer"], {})[match["part"]] = torch.from_numpy(np.array(stored[key]))
    halves = [layer for layer, pair in parts.items() if len(pair) != 2]
    if halves or not parts:
        what = f"half of the update of {halves[0]!r}" if halves else "no update"
        raise FileFormatError(f"{folder / WEIGHTS_NAME} holds {what}. Save the adapter again.")
    settings = {
        "r": int(config["r"]),
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": float(config.get("lora_dropout") or 0.0),
        "use_rslora": bool(config.get("use_rslora")),
        "target_modules": tuple(parts),
    }
    ranks = {layer: int(pair["A"].shape[0]) for layer, pair in parts.items()}
    return settings, ranks, {layer: (pair["A"], pair["B"]) for layer, pair in parts.items()}

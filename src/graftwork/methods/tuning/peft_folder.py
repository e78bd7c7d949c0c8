"""Adapter folders of peft, read and written without peft: ``adapter_config.json`` and ``adapter_model.safetensors``.

Tensors are called ``base_model.model.<layer>.lora_A.weight`` and ``....lora_B.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "load_adapter", "save_adapter", "write_adapter"]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
# Settings of peft that change what the tensors mean, or what the base weights are: only these values are understood.
_UNDERSTOOD: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    # pissa, olora, corda, loftq, lora_ga and mica change the base weights too: with plain base weights the sum is another model
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "layer_replication": (None, []),
    "megatron_config": (None,),
    "target_parameters": (None, []),
}
# Settings that say where updates are, which the tensors say themselves, or that only matter before or during training.
_INFORMATION = frozenset((
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r",
    "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora", "layers_to_transform", "layers_pattern",
    "rank_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
))  # fmt: skip


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
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in layers.items():
        down: Any = layer.down.weight
        up: Any = layer.up.weight
        tensors[name] = (down, up)
    write_adapter(tensors, settings, folder, base_model=base_model)


def write_adapter(
    updates: Mapping[str, tuple[Tensor, Tensor]], settings: Mapping[str, Any], folder: str | Path, *, base_model: str = ""
) -> None:
    """Write low-rank updates so that peft's ``PeftModel.from_pretrained`` reads them.

    Args:
        updates: ``(A, B)`` of each layer, by its name.
        settings: See :func:`save_adapter`.
        folder: See there.
        base_model: See there.

    Raises:
        StorageError: If the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {
        f"base_model.model.{name}.lora_{part}.weight": tensor.detach().cpu().contiguous().clone()
        for name, pair in updates.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
    ranks = {name: len(down) for name, (down, _) in updates.items()}
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
        # peft lets a pattern match after any prefix that ends in a dot; the ^ forbids a prefix.
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != settings["r"]},
        "alpha_pattern": {},
        "modules_to_save": None,
    }
    # Weights first: a new folder whose configuration exists is complete.
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
    if not isinstance(config, dict):
        raise FileFormatError(f"{folder / CONFIG_NAME} holds {type(config).__name__}, not an object. Save the adapter again.")
    if problems := list(_problems(config)):
        raise ConfigError(f"{folder / CONFIG_NAME} cannot be used.", problems)
    stored = TensorFile(folder / WEIGHTS_NAME)
    parts: dict[str, dict[str, Tensor]] = {}
    for key in stored:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ConfigError(
                f"{folder / WEIGHTS_NAME} holds the tensor {key!r}, which is no low-rank update; it cannot be used."
            )
        # ".lora_A.weight" and ".lora_A.default.weight" are two keys of the same part.
        if match["part"] in parts.get(match["layer"], {}):
            raise FileFormatError(
                f"{folder / WEIGHTS_NAME} holds {match['part']} of {match['layer']!r} twice. Save the adapter again."
            )
        # A copy: the file is mapped read-only, and torch needs writable memory.
        parts.setdefault(match["layer"], {})[match["part"]] = torch.from_numpy(np.array(stored[key]))
    halves = [layer for layer, pair in parts.items() if len(pair) != 2]
    if halves or not parts:
        what = f"half of the update of {halves[0]!r}" if halves else "no update"
        raise FileFormatError(f"{folder / WEIGHTS_NAME} holds {what}. Save the adapter again.")
    ranks = {layer: _rank(folder, layer, pair) for layer, pair in parts.items()}
    patterns = config.get("rank_pattern") or {}
    # Ranks come from the tensors. A rank that the configuration does not name would be scaled by a wrong alpha / r.
    known = [config["r"], *(patterns.values() if isinstance(patterns, dict) else ())]
    if wrong := [layer for layer, rank in ranks.items() if rank not in known]:
        raise FileFormatError(
            f"{folder}: the update of {wrong[0]!r} has rank {ranks[wrong[0]]}, but {CONFIG_NAME} says r = {config['r']!r} and "
            f"rank_pattern = {_short(patterns)}. Save the adapter again."
        )
    settings = {
        "r": int(config["r"]),
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": float(config.get("lora_dropout") or 0.0),
        "use_rslora": bool(config.get("use_rslora")),
        "target_modules": tuple(parts),
    }
    return settings, ranks, {layer: (pair["A"], pair["B"]) for layer, pair in parts.items()}


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a configuration: a setting that would make the adapter another one than the file describes."""
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}; only 'LORA' can be read"
    for key, understood in _UNDERSTOOD.items():
        value = config.get(key)
        # With types: 0 == False and 1 == True would pass otherwise.
        if not any(value is allowed or (value == allowed and type(value) is type(allowed)) for allowed in understood):
            yield f"{key} is {_short(value)}; only {understood[0]!r} can be read{_REMEDIES.get(key, '')}"
    for key in sorted(config.keys() - _UNDERSTOOD.keys() - _INFORMATION):
        value = config[key]
        if not (value is None or value is False or value in ([], {})):  # what is switched off has no effect
            yield f"{key} is {_short(value)}, a setting that is not known here; the adapter may mean something else with it"
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout") or 0.0
    if not isinstance(rank, int | float) or not _is_number(rank) or rank != int(rank) or rank < 1:
        yield f"r is {_short(rank)}; it must be an integer of at least 1"
    if not _is_number(alpha):
        yield f"lora_alpha is {_short(alpha)}; it must be a finite number"
    if not _is_number(dropout) or not 0.0 <= dropout < 1.0:
        yield f"lora_dropout is {_short(dropout)}; it must be at least 0 and below 1"
    if not isinstance(config.get("use_rslora", False), bool | None):
        yield f"use_rslora is {_short(config['use_rslora'])}; it must be true or false"


_REMEDIES: Mapping[str, str] = {
    "init_lora_weights": " (it changes the base weights too; save the adapter with peft's "
    "path_initial_model_for_weight_conversion)"
}


def _rank(folder: Path, layer: str, pair: Mapping[str, Tensor]) -> int:
    down, up = pair["A"], pair["B"]
    if (
        down.dim() < 2
        or up.dim() < 2
        or up.shape[1] != down.shape[0]
        or not (down.is_floating_point() and up.is_floating_point())
    ):
        raise FileFormatError(
            f"{folder / WEIGHTS_NAME}: the update of {layer!r} has A of shape {list(down.shape)} and B of shape "
            f"{list(up.shape)}, which are no low-rank pair. Save the adapter again."
        )
    return int(down.shape[0])


def _is_number(value: Any) -> bool:
    # bool is an int in Python. The bounds also refuse NaN and infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

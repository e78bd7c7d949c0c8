"""Adapter folders of peft, read without peft: ``adapter_config.json`` and ``adapter_model.safetensors``.

Tensors are called ``base_model.model.<layer>.lora_A.weight`` and ``....lora_B.weight``; DoRA has ``....lora_magnitude_vector``
besides, and layers that were trained whole (``modules_to_save``) their own tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.model_folder import ADAPTER_NAMES
from graftwork.core.tensor_files import TensorFile
from graftwork.methods.tuning.peft_remedies import said_of_setting, said_of_tensor, said_of_type

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "AdaptedLayer", "PeftAdapter", "is_harmless", "read_adapter", "read_config"]

CONFIG_NAME, WEIGHTS_NAME = ADAPTER_NAMES
_PREFIX = "base_model.model."
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[AB]|magnitude_vector)(?:\.default)?(?:\.weight)?")
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
# What a difference of weights can say besides, though the tuner cannot go on with it.
_OF_DELTAS = frozenset(("use_dora", "fan_in_fan_out", "alpha_pattern", "modules_to_save"))
# Settings that say where updates are, which the tensors say themselves, or that only matter before or during training.
_INFORMATION = frozenset((
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r",
    "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora", "layers_to_transform", "layers_pattern",
    "rank_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
))  # fmt: skip
_LONGEST_PATTERN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptedLayer:
    """The update of one layer, as it is stored."""

    down: Tensor
    """``A``, ``[rank, in]`` or ``[rank, in, height, width]``."""
    up: Tensor
    """``B``, ``[out, rank]`` or ``[out, rank, 1, 1]``."""
    scaling: float
    """Factor of ``B A``."""
    magnitude: Tensor | None = None
    """``[out]`` of DoRA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeftAdapter:
    """What is in a folder."""

    rank: int
    alpha: float
    dropout: float
    use_rslora: bool
    base_model: str
    """As the configuration calls it; empty if it does not."""
    is_transposed: bool
    """Whether weights are stored ``[in, out]`` (``fan_in_fan_out``)."""
    layers: Mapping[str, AdaptedLayer]
    saved: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of layers that were trained whole, by their names in the base."""


def read_adapter(folder: str | Path, *, plain: bool = False) -> PeftAdapter:
    """Read an adapter folder.

    Args:
        folder: What ``save_pretrained`` wrote.
        plain: Whether only what our tuner can go on with is allowed: no DoRA, no scaling by layer, no whole layers, no transposed
            weights.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, or uses a setting that graftwork does not know.
    """
    folder = Path(folder)
    config = read_config(folder)
    if problems := list(_problems(config, plain=plain)):
        raise ConfigError(f"{folder / CONFIG_NAME} cannot be used.", problems)
    parts, saved = _tensors(folder, config)
    halves = [layer for layer, found in parts.items() if not {"A", "B"} <= found.keys()]
    if halves or not parts:
        what = f"half of the update of {halves[0]!r}" if halves else "no update"
        raise FileFormatError(f"{folder / WEIGHTS_NAME} holds {what}. Save the adapter again.")
    return PeftAdapter(
        rank=int(config["r"]),
        alpha=config["lora_alpha"],
        dropout=float(config.get("lora_dropout") or 0.0),
        use_rslora=bool(config.get("use_rslora")),
        base_model=str(config.get("base_model_name_or_path") or ""),
        is_transposed=bool(config.get("fan_in_fan_out")),
        layers={name: _layer(folder, name, found, config) for name, found in parts.items()},
        saved=saved,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of an adapter folder as it stands in the file.

    Raises:
        FileFormatError: If one of the two files is missing, or the configuration is no object.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileFormatError(
                f"{folder} is no adapter folder: {name} is missing. Give the folder that save_pretrained wrote."
            )
    config = read_json(folder / CONFIG_NAME)
    if not isinstance(config, dict):
        raise FileFormatError(f"{folder / CONFIG_NAME} holds {type(config).__name__}, not an object. Save the adapter again.")
    return config


def _tensors(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return parts of updates by layer, and tensors of layers that were trained whole."""
    stored = TensorFile(folder / WEIGHTS_NAME)
    whole = config.get("modules_to_save") or []
    parts: dict[str, dict[str, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    for key in stored:
        match = _KEY.fullmatch(key)
        name = key.removeprefix(_PREFIX)
        # A copy: the file is mapped read-only, and torch needs writable memory.
        if match is None and any(f".{module}." in f".{name}" for module in whole):
            saved[name] = torch.from_numpy(np.array(stored[key]))
            continue
        if match is None:
            raise ConfigError(f"{folder / WEIGHTS_NAME} holds the tensor {key!r}, which is {said_of_tensor(key)}")
        # ".lora_A.weight" and ".lora_A.default.weight" are two keys of the same part.
        if match["part"] in parts.get(match["layer"], {}):
            raise FileFormatError(
                f"{folder / WEIGHTS_NAME} holds {match['part']} of {match['layer']!r} twice. Save the adapter again."
            )
        parts.setdefault(match["layer"], {})[match["part"]] = torch.from_numpy(np.array(stored[key]))
    return parts, saved


def _layer(folder: Path, name: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> AdaptedLayer:
    down, up, magnitude = parts["A"], parts["B"], parts.get("magnitude_vector")
    if (
        down.dim() < 2
        or up.dim() < 2
        or up.shape[1] != down.shape[0]
        or not (down.is_floating_point() and up.is_floating_point())
    ):
        raise FileFormatError(
            f"{folder / WEIGHTS_NAME}: the update of {name!r} has A of shape {list(down.shape)} and B of shape "
            f"{list(up.shape)}, which are no low-rank pair. Save the adapter again."
        )
    patterns = config.get("rank_pattern") or {}
    # Ranks come from the tensors. A rank that the configuration does not name would be scaled by a wrong alpha / r.
    if len(down) not in [config["r"], *(patterns.values() if isinstance(patterns, dict) else ())]:
        raise FileFormatError(
            f"{folder}: the update of {name!r} has rank {len(down)}, but {CONFIG_NAME} says r = {config['r']!r} and "
            f"rank_pattern = {_short(patterns)}. Save the adapter again."
        )
    if bool(config.get("use_dora")) != (magnitude is not None) or (magnitude is not None and magnitude.numel() != len(up)):
        raise FileFormatError(
            f"{folder}: {CONFIG_NAME} says use_dora = {config.get('use_dora')!r}, but the update of {name!r} has "
            f"{'no magnitudes' if magnitude is None else f'magnitudes of shape {list(magnitude.shape)}'}. Save the adapter again."
        )
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # As peft: the first that fits counts, after any prefix that ends in a dot.
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    scaling = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
    return AdaptedLayer(down=down, up=up, scaling=scaling, magnitude=None if magnitude is None else magnitude.flatten())


def _problems(config: Mapping[str, Any], *, plain: bool) -> Iterator[str]:
    """Yield what is wrong with a configuration: a setting that would make the adapter another one than the file describes."""
    if config.get("peft_type") != "LORA":
        # Settings of another kind are not gone through: what they are called says nothing about this one.
        kind = config.get("peft_type")
        yield f"peft_type is {_short(kind)}; only 'LORA' can be read here{said_of_type(kind)}"
        return
    for key, understood in _UNDERSTOOD.items():
        value = config.get(key)
        if key in _OF_DELTAS and not plain:
            continue
        # With types: 0 == False and 1 == True would pass otherwise.
        if not any(value is allowed or (value == allowed and type(value) is type(allowed)) for allowed in understood):
            yield f"{key} is {_short(value)}; only {understood[0]!r} can be read{said_of_setting(key)}"
    if not plain:
        yield from _problems_of_deltas(config)
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


def _problems_of_deltas(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("use_dora", "fan_in_fan_out"):
        if not isinstance(config.get(key), bool | None):
            yield f"{key} is {_short(config[key])}; it must be true or false"
    if config.get("use_dora") is True and config.get("fan_in_fan_out") is True:
        yield "use_dora is True with fan_in_fan_out; magnitudes of transposed weights cannot be read"
    saved = config.get("modules_to_save")
    if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
        yield f"modules_to_save is {_short(saved)}; it must be a list of names"
    patterns = config.get("alpha_pattern")
    if not isinstance(patterns, dict | None) or not all(map(_is_number, (patterns or {}).values())):
        yield f"alpha_pattern is {_short(patterns)}; it must say a finite number for each pattern"
        return
    for pattern in patterns or {}:
        if not is_harmless(pattern):
            yield f"alpha_pattern has {_short(pattern)}; only short patterns with at most two repeats and no group can be read"


def is_harmless(pattern: str) -> bool:
    """Return whether a pattern of a file is matched in short time: one of a stranger could be made to run for ever."""
    plain = re.sub(r"\\.", "", pattern)
    repeats = sum(plain.count(sign) for sign in "*+?{")
    if len(pattern) > _LONGEST_PATTERN or repeats > 2 or "(" in plain or ")" in plain:
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _is_number(value: Any) -> bool:
    # bool is an int in Python. The bounds also refuse NaN and infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

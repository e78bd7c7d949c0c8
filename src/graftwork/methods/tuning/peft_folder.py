"""Adapter folders of peft, written and read without peft, for LoRA as our tuner has it; :mod:`.peft_reading` reads more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from graftwork.core.files import write_bytes, write_json
from graftwork.core.tensor_header import with_sorted_texts
from graftwork.methods.tuning.peft_reading import CONFIG_NAME, WEIGHTS_NAME, read_adapter
from graftwork.nn.lora import LowRankLayer

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "load_adapter", "save_adapter", "write_adapter"]


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
    updates: Mapping[str, tuple[Tensor, Tensor]],
    settings: Mapping[str, Any],
    folder: str | Path,
    *,
    base_model: str = "",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write low-rank updates so that peft's ``PeftModel.from_pretrained`` reads them.

    Args:
        updates: ``(A, B)`` of each layer, by its name.
        settings: See :func:`save_adapter`.
        folder: See there.
        base_model: See there.
        metadata: More texts for the header of the weights, such as a lineage.

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
    content = save(tensors, metadata={**(metadata or {}), "format": "pt"})
    write_bytes(folder / WEIGHTS_NAME, with_sorted_texts(content))
    write_json(folder / CONFIG_NAME, config)


def load_adapter(folder: str | Path) -> tuple[dict[str, Any], dict[str, int], dict[str, tuple[Tensor, Tensor]]]:
    """Read an adapter folder of peft that :class:`~graftwork.methods.tuning.lora.LoRA` can go on with.

    Returns:
        Settings for :class:`~graftwork.methods.tuning.lora.LoRA`, the rank of each layer, and ``(A, B)`` of each layer.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, or uses a setting that the tuner does not know; see
            :func:`graftwork.methods.tuning.peft_delta.delta_from_peft` for adapters that are a difference of weights all the same.
    """
    adapter = read_adapter(folder, plain=True)
    settings = {
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.use_rslora,
        "target_modules": tuple(adapter.layers),
    }
    ranks = {name: len(layer.down) for name, layer in adapter.layers.items()}
    return settings, ranks, {name: (layer.down, layer.up) for name, layer in adapter.layers.items()}

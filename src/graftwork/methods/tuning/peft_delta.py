"""Deltas from and to adapter folders of peft: low-rank differences without a model in hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.peft_folder import load_adapter, write_adapter
from graftwork.nn.delta_base import check_shapes
from graftwork.nn.foldable import plain_state
from graftwork.nn.weight_delta import LowRank, Part, WeightDelta

__all__ = ["delta_from_peft", "delta_to_peft"]


def delta_from_peft(folder: str | Path, model: nn.Module | None = None) -> WeightDelta:
    """Read a LoRA adapter that peft or graftwork saved as a difference of weights.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: The base, if it is at hand: names and shapes are checked then, and the delta carries its fingerprint. peft itself
            keeps none.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, uses a setting that graftwork does not know, or does not fit the model.
    """
    settings, ranks, tensors = load_adapter(folder)
    parts: dict[str, Part] = {}
    shapes: dict[str, torch.Size] = {}
    for layer, (down, up) in tensors.items():
        scaling = settings["lora_alpha"] / (math.sqrt(ranks[layer]) if settings["use_rslora"] else ranks[layer])
        parts[f"{layer}.weight"] = LowRank(down, up, scaling)
        shapes[f"{layer}.weight"] = torch.Size([len(up), *down.shape[1:]])
    state: Mapping[str, Tensor] = {} if model is None else plain_state(model)
    if model is not None:
        check_shapes(state, shapes)
    return WeightDelta(
        parts,
        shapes,
        base_fingerprint=state_fingerprint(state) if state else "",
        base_prints=tensor_prints(state),
        lineage={"peft": str(folder), "r": settings["r"], "lora_alpha": settings["lora_alpha"]},
    )


def delta_to_peft(delta: WeightDelta, folder: str | Path, *, base_model: str = "") -> None:
    """Write a low-rank delta as a LoRA adapter that peft's ``PeftModel.from_pretrained`` reads.

    Args:
        delta: All its parts are low rank, of weights of layers. Factors that differ between layers go into ``B``.
        folder: Folder to write into; created if needed, files are replaced atomically.
        base_model: Name or folder of the base model, for the reader's information.

    Raises:
        ConfigError: If a part is no low-rank difference of a layer's weight, or there is none.
        StorageError: If the folder cannot be written.
    """
    wrong = [name for name, part in delta.parts.items() if not name.endswith(".weight") or not _is_of_peft(delta, name, part)]
    if wrong or not delta.parts:
        what = f"{wrong[0]!r} is no low-rank difference of a layer's weight" if wrong else "it is empty"
        raise ConfigError(f"This delta cannot be written as a LoRA adapter of peft: {what}. Save it as a delta file.")
    found = {name.removesuffix(".weight"): part for name, part in delta.parts.items() if isinstance(part, LowRank)}
    rank = Counter(len(part.down) for part in found.values()).most_common(1)[0][0]
    # alpha / r is 1 for every layer whose rank is the common one: factors are written into B, whatever they are.
    tensors = {layer: (part.down, part.up * (part.factor * len(part.down) / rank)) for layer, part in found.items()}
    settings = {"r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "use_rslora": False}
    write_adapter(tensors, settings, folder, base_model=base_model)


def _is_of_peft(delta: WeightDelta, name: str, part: Part) -> bool:
    """Return whether a part is laid out as peft's LoRA is: convLoRA's columns of kernels, CP and DoRA are not."""
    return isinstance(part, LowRank) and part.down.shape[1:] == delta.shapes[name][1:]

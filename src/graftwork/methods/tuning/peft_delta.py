"""Deltas from and to adapter folders of peft: low-rank differences without a model in hand, IA3 with its base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.peft_folder import write_adapter
from graftwork.methods.tuning.peft_ia3 import is_ia3, parts_of_scales, read_ia3
from graftwork.methods.tuning.peft_reading import AdaptedLayer, read_adapter
from graftwork.nn.delta_base import check_shapes
from graftwork.nn.foldable import plain_state
from graftwork.nn.weight_delta import Decomposed, Dense, LowRank, Part, WeightDelta

__all__ = ["delta_from_peft", "delta_to_peft", "read_delta"]


def read_delta(folder: str | Path) -> tuple[WeightDelta, dict[str, Tensor]]:
    """Read a LoRA adapter as a difference of weights, without its base.

    Returns:
        The difference, and whole tensors that stand in the place of the base's (``modules_to_save``).

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, or uses a setting that graftwork does not know.
    """
    adapter = read_adapter(folder)
    parts = {f"{name}.weight": _part(layer, is_transposed=adapter.is_transposed) for name, layer in adapter.layers.items()}
    shapes = {}
    for name, part in parts.items():
        factors = part.direction if isinstance(part, Decomposed) else part
        assert isinstance(factors, LowRank)
        shapes[name] = torch.Size([len(factors.up), *factors.down.shape[1:]])
    lineage = {"peft": str(folder), "base_model": adapter.base_model, "r": adapter.rank, "lora_alpha": adapter.alpha}
    return WeightDelta(parts, shapes, lineage=lineage), dict(adapter.saved)


def _part(layer: AdaptedLayer, *, is_transposed: bool) -> Part:
    if is_transposed:
        # (B A)^T = A^T B^T
        return LowRank(layer.up.T.contiguous(), layer.down.T.contiguous(), layer.scaling)
    factors = LowRank(layer.down, layer.up, layer.scaling)
    return factors if layer.magnitude is None else Decomposed(factors, layer.magnitude)


def delta_from_peft(folder: str | Path, model: nn.Module | None = None, *, prefix: str = "") -> WeightDelta:
    """Read a LoRA or IA3 adapter that peft or graftwork saved as a difference of weights.

    DoRA becomes a decomposed difference, ``alpha_pattern`` a factor by layer, ``fan_in_fan_out`` transposed factors, and layers that
    were trained whole (``modules_to_save``) dense differences from the base's. IA3 becomes rescaled weights and biases.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: The base, if it is at hand: names and shapes are checked then, and the delta carries its fingerprint. peft itself
            keeps none.
        prefix: Put before all names, where the base stands inside of ``model``: ``"model."`` for backbones from transformers.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, uses a setting that graftwork does not know, does not fit the model, or has
            whole layers or IA3 and no model is given.
    """
    if is_ia3(folder):
        return _of_ia3(Path(folder), model, prefix)
    delta, saved = read_delta(folder)
    if prefix:
        shapes = {prefix + name: shape for name, shape in delta.shapes.items()}
        delta = WeightDelta({prefix + name: part for name, part in delta.parts.items()}, shapes, lineage=delta.lineage)
        saved = {prefix + name: tensor for name, tensor in saved.items()}
    if model is None:
        if saved:
            raise ConfigError(
                f"{folder} holds whole layers in the place of the base's (modules_to_save: {', '.join(list(saved)[:3])}), which are no "
                "difference without it. Give the base model as well."
            )
        return delta
    state = plain_state(model)
    check_shapes(state, {**delta.shapes, **{name: tensor.shape for name, tensor in saved.items()}})
    parts = {**delta.parts, **{name: Dense(tensor - state[name].detach().to(tensor)) for name, tensor in saved.items()}}
    return WeightDelta(
        parts,
        {name: state[name].shape for name in parts},
        base_fingerprint=state_fingerprint(state),
        base_prints=tensor_prints(state),
        lineage=delta.lineage,
    )


def _of_ia3(folder: Path, model: nn.Module | None, prefix: str) -> WeightDelta:
    """Return the factors of an IA3 adapter as rescaled weights, and biases where outputs are scaled."""
    if model is None:
        raise ConfigError(
            f"{folder} holds IA3, factors on what layers compute, which are no difference without the base. Give it as well."
        )
    state = plain_state(model)
    scales = {f"{prefix}{name}": scale for name, scale in read_ia3(folder).items()}
    parts = parts_of_scales(scales, {name: tensor.shape for name, tensor in state.items()}, folder)
    return WeightDelta(
        parts,
        {name: state[name].shape for name in parts},
        base_fingerprint=state_fingerprint(state),
        base_prints=tensor_prints(state),
        lineage={"peft": str(folder), "tuner": "IA3"},
    )


def delta_to_peft(
    delta: WeightDelta, folder: str | Path, *, base_model: str = "", prefix: str = "", metadata: Mapping[str, str] | None = None
) -> None:
    """Write a low-rank delta as a LoRA adapter that peft's ``PeftModel.from_pretrained`` reads.

    Args:
        delta: All its parts are low rank, of weights of layers. Factors that differ between layers go into ``B``.
        folder: Folder to write into; created if needed, files are replaced atomically.
        base_model: Name or folder of the base model, for the reader's information.
        prefix: What names of the delta begin with and those of the plain model do not; it is left out. Deltas of backbones from
            transformers have ``"model."``.
        metadata: More texts for the header of the weights.

    Raises:
        ConfigError: If a name does not begin with ``prefix``, or a part is no low-rank difference of a layer's weight, or there is none.
        StorageError: If the folder cannot be written.
    """
    wrong = [name for name, part in delta.parts.items() if not name.endswith(".weight") or not _is_of_peft(delta, name, part)]
    if wrong or not delta.parts:
        what = f"{wrong[0]!r} is no low-rank difference of a layer's weight" if wrong else "it is empty"
        raise ConfigError(f"This delta cannot be written as a LoRA adapter of peft: {what}. Save it as a delta file.")
    if odd := [name for name in delta.parts if not name.startswith(prefix)]:
        raise ConfigError(
            f"`prefix` is {prefix!r}, but {odd[0]!r} does not begin with it. Leave it out, or name what all names share."
        )
    found = {
        name.removeprefix(prefix).removesuffix(".weight"): part for name, part in delta.parts.items() if isinstance(part, LowRank)
    }
    rank = Counter(len(part.down) for part in found.values()).most_common(1)[0][0]
    # alpha / r is 1 for every layer whose rank is the common one: factors are written into B, whatever they are.
    tensors = {layer: (part.down, part.up * (part.factor * len(part.down) / rank)) for layer, part in found.items()}
    settings = {"r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "use_rslora": False}
    write_adapter(tensors, settings, folder, base_model=base_model, metadata=metadata)


def _is_of_peft(delta: WeightDelta, name: str, part: Part) -> bool:
    """Return whether a part is laid out as peft's LoRA is: convLoRA's columns of kernels, CP and DoRA are not."""
    return isinstance(part, LowRank) and part.down.shape[1:] == delta.shapes[name][1:]

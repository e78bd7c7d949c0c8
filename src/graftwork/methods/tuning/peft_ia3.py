"""IA3 adapter folders of peft, read and written without peft.

A layer has one tensor, ``base_model.model.<layer>.ia3_l``: factors of the outputs, or, where the layer is among
``feedforward_modules``, of the inputs. Those of linear layers are ``[out, 1]`` and ``[1, in]``, those of convolutions
``[1, channels, 1, 1]`` for either, so that only the configuration tells which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import write_bytes, write_json
from graftwork.core.tensor_files import TensorFile
from graftwork.core.tensor_header import with_sorted_texts
from graftwork.methods.tuning.peft_reading import CONFIG_NAME, WEIGHTS_NAME, is_harmless, read_config
from graftwork.methods.tuning.peft_remedies import MERGE
from graftwork.nn.delta_parts import Part, Rescaled
from graftwork.nn.rescaled_layer import RescaledLayer, Side

__all__ = ["Scale", "is_ia3", "parts_of_scales", "read_ia3", "write_ia3", "write_scales"]

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.ia3_l(?:\.default)?(?:\.weight)?")
_OFF: Mapping[str, tuple[Any, ...]] = {"fan_in_fan_out": (False, None), "modules_to_save": (None, [])}
"""Settings that change what the tensors mean: only these values are understood."""
_INFORMATION = frozenset((
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "feedforward_modules", "init_ia3_weights",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Factors of one layer."""

    side: Side
    values: Tensor
    """``[features]``."""
    of_maps: bool = False
    """Whether the layer is a convolution, whose factors peft stores in another shape."""

    @property
    def axis(self) -> int:
        """Dimension of the layer's weight that the factors run along."""
        return 0 if self.side == "outputs" else 1

    def stored(self) -> Tensor:
        """Return the factors in the shape in which peft stores them."""
        shape = [1, -1, 1, 1] if self.of_maps else [-1, 1] if self.side == "outputs" else [1, -1]
        return self.values.detach().cpu().reshape(shape).contiguous()


def is_ia3(folder: str | Path) -> bool:
    """Return whether an adapter folder says that it holds IA3.

    Raises:
        FileFormatError: If a file is missing, or the configuration cannot be read.
    """
    return read_config(Path(folder)).get("peft_type") == "IA3"


def read_ia3(folder: str | Path) -> dict[str, Scale]:
    """Read an IA3 adapter; return its factors by layer.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, or uses a setting that graftwork does not know.
    """
    folder = Path(folder)
    config = read_config(folder)
    if problems := list(_problems(config)):
        raise ConfigError(f"{folder / CONFIG_NAME} cannot be used.", problems)
    stored = TensorFile(folder / WEIGHTS_NAME)
    found: dict[str, Scale] = {}
    for key in stored:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ConfigError(f"{folder / WEIGHTS_NAME} holds the tensor {key!r}, which is no scale of IA3. To use it, {MERGE}.")
        # A copy: the file is mapped read-only, and torch needs writable memory.
        scale = torch.from_numpy(np.array(stored[key]))
        layer, size = match["layer"], scale.numel()
        side: Side = "inputs" if _names_layer(config.get("feedforward_modules"), layer) else "outputs"
        shapes = ([1, size] if side == "inputs" else [size, 1], [1, size, 1, 1])
        if list(scale.shape) not in shapes or not scale.is_floating_point() or layer in found:
            raise FileFormatError(
                f"{folder / WEIGHTS_NAME}: the scale of {layer!r} has shape {list(scale.shape)} and type {scale.dtype}, and stands for "
                f"{side}; one tensor of shape {shapes[0]} or {shapes[1]} is expected. Save the adapter again."
            )
        found[layer] = Scale(side=side, values=scale.flatten(), of_maps=scale.ndim == 4)
    if not found:
        raise FileFormatError(f"{folder / WEIGHTS_NAME} holds no scale. Save the adapter again.")
    return found


def parts_of_scales(scales: Mapping[str, Scale], shapes: Mapping[str, Sequence[int]], where: str | Path) -> dict[str, Part]:
    """Return factors as differences of weights, and of biases where outputs are scaled.

    Args:
        scales: By layer.
        shapes: Of the base's tensors, by the names that the layers have in the adapter.
        where: The adapter, for messages.

    Raises:
        ConfigError: If a layer is not there, or has another size.
    """
    parts: dict[str, Part] = {}
    for name, scale in scales.items():
        weight, bias = f"{name}.weight", f"{name}.bias"
        shape = shapes.get(weight)
        if shape is None or len(shape) < 2 or shape[scale.axis] != len(scale.values):
            has = f"no {weight!r}" if shape is None else f"{weight!r} of shape {list(shape)}"
            raise ConfigError(
                f"{where} does not fit the model: it scales {len(scale.values)} {scale.side} of {name!r}; the model has {has}."
            )
        parts[weight] = Rescaled(scale.values, scale.axis)
        if scale.side == "outputs" and bias in shapes:
            parts[bias] = Rescaled(scale.values.clone())
    return parts


def write_ia3(layers: Mapping[str, RescaledLayer], folder: str | Path, *, base_model: str = "") -> None:
    """Write an attached IA3 so that peft's ``PeftModel.from_pretrained`` reads it.

    Args:
        layers: The layers by the name of the layer that they rescale.
        folder: See :func:`write_scales`.
        base_model: See there.

    Raises:
        StorageError: If the folder cannot be written.
    """
    scales = {name: Scale(side=layer.side, values=layer.scale, of_maps=layer.weight.ndim == 4) for name, layer in layers.items()}
    write_scales(scales, folder, base_model=base_model)


def write_scales(
    scales: Mapping[str, Scale], folder: str | Path, *, base_model: str = "", metadata: Mapping[str, str] | None = None
) -> None:
    """Write factors so that peft's ``PeftModel.from_pretrained`` reads them.

    Args:
        scales: By layer.
        folder: Folder to write into; created if needed, files are replaced atomically.
        base_model: Name or folder of the base model, for the reader's information.
        metadata: More texts for the header of the weights, such as a lineage.

    Raises:
        StorageError: If the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {f"base_model.model.{name}.ia3_l": scale.stored() for name, scale in scales.items()}
    config: dict[str, Any] = {
        "peft_type": "IA3",
        "task_type": None,
        "base_model_name_or_path": base_model or None,
        "inference_mode": True,
        # Full names as expressions: in a list "fc" would also match "block.fc".
        "target_modules": _expression(scales),
        "feedforward_modules": _expression(name for name, scale in scales.items() if scale.side == "inputs") or [],
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_ia3_weights": True,
    }
    # Weights first: a new folder whose configuration exists is complete.
    content = save(tensors, metadata={**(metadata or {}), "format": "pt"})
    write_bytes(folder / WEIGHTS_NAME, with_sorted_texts(content))
    write_json(folder / CONFIG_NAME, config)


def _expression(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _plain_names(pattern: str) -> list[str] | None:
    """Return the names of an expression that is nothing but names, as :func:`write_ia3` makes them; None for others."""
    names = [re.sub(r"\\(.)", r"\1", part) for part in pattern.split("|")]
    return names if pattern == "|".join(re.escape(name) for name in names) else None


def _names_layer(which: Any, layer: str) -> bool:
    """Return whether names or an expression mean a layer, as peft understands them."""
    if not isinstance(which, str):
        return any(layer.endswith(name) for name in which or ())
    names = _plain_names(which)
    return bool(re.fullmatch(which, layer)) if names is None else layer in names


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a configuration: a setting that would make the adapter another one than the file describes."""
    if config.get("peft_type") != "IA3":
        yield f"peft_type is {config.get('peft_type')!r}; 'IA3' is expected"
        return
    for key, understood in _OFF.items():
        if not any(config.get(key) is allowed or config.get(key) == allowed for allowed in understood):
            yield f"{key} is {config.get(key)!r:.80}; only {understood[0]!r} can be read with IA3; {MERGE}"
    for key in sorted(config.keys() - _OFF.keys() - _INFORMATION):
        value = config[key]
        if not (value is None or value is False or value in ([], {})):  # what is switched off has no effect
            yield f"{key} is {value!r:.80}, a setting that is not known here; the adapter may mean something else with it"
    which = config.get("feedforward_modules")
    if isinstance(which, str):
        if _plain_names(which) is None and not is_harmless(which):
            yield f"feedforward_modules is {which!r:.80}; only names and short expressions without groups can be read"
    elif which is not None and not (isinstance(which, Sequence) and all(isinstance(name, str) for name in which)):
        yield f"feedforward_modules is {which!r:.80}; it must be names or an expression"

"""Trained TTM forecasters on disk: trunk, decoder and head as safetensors beside a description. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json, write_bytes, write_json
from graftwork.core.input_spec import InputSpec
from graftwork.nn.backbones.ttm import TtmBackbone

__all__ = ["FORMAT", "load_ttm", "save_ttm"]

FORMAT = "graftwork-ttm-1"
_TRUNK, _REST = "backbone.", "forecaster."
_SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "length": int, "width": int, "patch": int, "levels": int, "layers": int, "prefix": bool, "expansion": (int, float),
    "dropout": (int, float),
}  # fmt: skip


def save_ttm(backbone: TtmBackbone, forecaster: Mapping[str, Tensor], settings: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``config.json`` and ``model.safetensors``.

    Args:
        backbone: The trunk.
        forecaster: Tensors of decoder and head, by name.
        settings: What the decoder was built with, JSON values.
        folder: Made if absent.

    Returns:
        The folder.

    Raises:
        StorageError: If the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {f"{_TRUNK}{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors |= {f"{_REST}{name}": tensor for name, tensor in forecaster.items()}
    # Copies: safetensors refuses tensors that share memory.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(plain, metadata={"format": "pt"}))
    write_json(folder / "config.json", {"format": FORMAT, "backbone": backbone.settings, "decoder": dict(settings)})
    return folder


def load_ttm(folder: str | Path, spec: InputSpec | None = None) -> TtmBackbone:
    """Return the trunk that :func:`save_ttm` wrote, with decoder and head in ``forecaster`` (``settings``, ``tensors``).

    Args:
        folder: The folder.
        spec: The input that it reads; without it, a series of one channel.

    Raises:
        FileFormatError: If a file is missing, damaged or of another format.
        ConfigError: If the input has another number of steps than the trunk was trained with.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileFormatError(f"{folder} holds no TTM: it has no config.json. Give a folder written by save_ttm.")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise FileFormatError(f"{folder / 'config.json'} has the format {found!r}; expected {FORMAT!r}. Save the model again.")
    settings, decoder = config.get("backbone"), config.get("decoder")
    if (
        not isinstance(settings, dict)
        or not isinstance(decoder, dict)
        or set(settings) != set(_SETTINGS)
        or any(not isinstance(settings[name], kind) for name, kind in _SETTINGS.items())
    ):
        raise FileFormatError(f"The settings in {folder / 'config.json'} cannot be read. Save the model again.")
    sizes = {} if spec is None else spec.sizes
    if int(sizes.get("length", settings["length"])) != settings["length"]:
        raise ConfigError(
            f"The TTM in {folder} reads {settings['length']} steps, but the series of this suite have {sizes['length']}. Make "
            f"the suite with a length of {settings['length']}."
        )
    backbone = TtmBackbone(channels=int(sizes.get("channels", 1)), **settings)
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        backbone.load_state_dict({name.removeprefix(_TRUNK): item for name, item in tensors.items() if name.startswith(_TRUNK)})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise FileFormatError(
            f"{folder / 'model.safetensors'} does not fit its config.json: {error}. Save the model again."
        ) from error
    rest = {name.removeprefix(_REST): item for name, item in tensors.items() if name.startswith(_REST)}
    backbone.forecaster = {"settings": decoder, "tensors": rest}
    return backbone

"""Image models that transformers saved into a local folder: ``config.json``, ``model.safetensors`` and, for the colours that the
weights expect, ``preprocessor_config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.optional import require
from graftwork.core.without_compiler import without_compiler
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.backbones.source_heads import SourceHead
from graftwork.nn.backbones.transformers_bridge import check_complete, no_bars_in_files

__all__ = ["VisionBackbone", "load_vision_folder"]

_COLOURS = (0.5, 0.5, 0.5)
"""Mean and deviation that transformers' processors take if nothing is stored."""
_LARGEST = 10_000


class VisionBackbone(Backbone):
    """An image model of transformers without its classifier. Takes ``inputs["image"]``, uint8 (or float 0..255) ``[B, S, S, 3]``.

    Features ``[B, width]`` are what its classifier would read. Of a model that has none they are the class token, or the mean over
    places.

    Args:
        model: The model, its classifier replaced by an identity; or a model whose output has ``last_hidden_state``.
        size: Working resolution in pixels.
        mean: Mean of each colour channel that the weights expect, for values in 0..1.
        std: Standard deviation likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, *, size: int, mean: Sequence[float] = _COLOURS, std: Sequence[float] = _COLOURS) -> None:
        super().__init__()
        self.model, self.size = model, size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        self._has_class_token = any(name.endswith("cls_token") for name, _ in model.named_parameters())
        with torch.inference_mode():
            found = self({"image": torch.zeros(1, size, size, 3, dtype=torch.uint8)})
        self.feature_shape = FeatureShape("vector", int(found.shape[1]))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[B, width]``."""
        pictures = inputs["image"].permute(0, 3, 1, 2).to(self.mean.dtype) / 255.0
        if pictures.shape[-1] != self.size or pictures.shape[-2] != self.size:
            pictures = functional.interpolate(pictures, size=(self.size, self.size), mode="bilinear", align_corners=False)
        output = self.model(pixel_values=(pictures - self.mean) / self.std)
        found: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
        if found.ndim == 3:
            return found[:, 0] if self._has_class_token else found.mean(dim=1)
        return found if found.ndim == 2 else found.flatten(2).mean(dim=2)


def load_vision_folder(folder: str | Path) -> tuple[VisionBackbone, SourceHead | None]:
    """Return the model of a folder without its classifier, and the classifier if it is a linear one.

    Only safetensors weights are read, and no code from the folder runs.

    Args:
        folder: See the module's docstring.

    Raises:
        ConfigError: If transformers cannot load or run it.
        FileFormatError: If a description is damaged, or weights are missing.
        MissingDependencyError: If transformers is not installed.
    """
    folder = Path(folder)
    library = require("transformers", extra="text", purpose=f"The model in {folder}")
    config = _object(folder / "config.json")
    size, mean, std = _pictures(folder, config)
    names = config.get("architectures")
    is_classifier = isinstance(names, list) and any(str(name).endswith("ForImageClassification") for name in names)
    loader = library.AutoModelForImageClassification if is_classifier else library.AutoModel
    try:
        # The module of the architecture is imported here.
        with no_bars_in_files(library.utils.logging), without_compiler():
            model, facts = loader.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # of any kind: the code is the library's, the settings are those of config.json
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(
            f"The folder {folder} holds no image model that transformers can load from safetensors ({reason})."
        ) from error
    check_complete(folder, facts)
    head = _taken_head(model, int(model.config.num_labels)) if is_classifier else None
    try:
        return VisionBackbone(model.eval(), size=size, mean=mean, std=std).eval(), head
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(
            f"{folder} was loaded and cannot be run as an image model at {size} pixels ({reason}). Check its config.json; download or "
            "save the model again."
        ) from error


def _taken_head(model: nn.Module, classes: int) -> SourceHead | None:
    """Replace the last linear layer by an identity and return it; None, and nothing replaced, if it does not end in the classes."""
    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or linear[-1][1].out_features != classes or linear[-1][1].bias is None:
        return None
    name, layer = linear[-1]
    place, _, own = name.rpartition(".")
    setattr(model.get_submodule(place), own, nn.Identity())
    return SourceHead(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())


def _pictures(folder: Path, config: Mapping[str, Any]) -> tuple[int, list[float], list[float]]:
    """Return working size, mean and deviation.

    Raises:
        FileFormatError: Naming file, key and value.
    """
    file = folder / "preprocessor_config.json"
    stored = _object(file) if file.is_file() else {}
    # The size of the weights, where there is one, and not that of the pictures that are cut out of larger ones.
    for path, value in (
        (folder / "config.json", config.get("image_size")),
        (file, stored.get("crop_size")),
        (file, stored.get("size")),
    ):
        if value is not None:
            size = _side(path, value)
            break
    else:
        size = 224
    colours = []
    for key in ("image_mean", "image_std"):
        value = stored.get(key) or list(_COLOURS)
        fits = isinstance(value, list) and len(value) == 3 and all(_is_number(one, -_LARGEST, _LARGEST) for one in value)
        if not fits or (key == "image_std" and not all(one > 0 for one in value)):
            raise FileFormatError(f"{file}: {key} is {value!r:.60}; expected three numbers. Download or save the model again.")
        colours.append([float(one) for one in value])
    return size, colours[0], colours[1]


def _side(path: Path, value: Any) -> int:
    sides = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if not sides or not all(_is_number(side, 1, _LARGEST) and int(side) == side for side in sides):
        raise FileFormatError(
            f"{path}: the size of pictures is {value!r:.60}; expected pixels. Download or save the model again."
        )
    return int(max(sides))


def _is_number(value: Any, least: float, most: float) -> bool:
    # NaN is not within the limits either.
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} holds {found!r:.60}; expected an object. Download or save the model again.")
    return found

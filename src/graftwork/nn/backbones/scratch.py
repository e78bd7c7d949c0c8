"""The untrained trunk of each modality, sized by the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.records import Modality
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.backbones.text import TextBackbone

__all__ = ["scratch_backbone"]


def scratch_backbone(modality: Modality, input_sizes: Mapping[str, Any]) -> Backbone:
    """Return a fresh trunk, drawn from torch's global generator.

    Args:
        modality: ``"table"``, ``"image"`` or ``"text"``.
        input_sizes: The suite's :attr:`~graftwork.data.suite.Suite.input_sizes`; ``feature_map`` set to true asks for a map
            (pictures with dense tasks).

    Raises:
        ConfigError: If the modality is unknown or a size is missing.
    """
    try:
        if modality == "table" and input_sizes.get("sequences"):
            return BehaviourBackbone(input_sizes)
        if modality == "table":
            return TableBackbone(int(input_sizes["num_numeric"]), tuple(input_sizes.get("cardinalities", ())))
        if modality == "image":
            return ConvBackbone(int(input_sizes["image_size"]), feature_map=bool(input_sizes.get("feature_map", False)))
        if modality == "text":
            return TextBackbone(int(input_sizes["vocabulary_size"]))
    except KeyError as error:
        raise ConfigError(
            f"The {modality} trunk needs input_sizes[{error.args[0]!r}]; got {dict(input_sizes)}. Open the data with open_suite, "
            "which fills it, or add it to the Suite."
        ) from error
    raise ConfigError(f"There is no own trunk for modality {modality!r}; allowed: table, image, text.")

"""Own trunks without weights, by name: what they are and how a plan writes them. Listing imports no torch.

A plan names such a trunk by its path: ``backbone = { path = "graftwork.nn.backbones.osnet:OSNet", settings = { ... } }``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftwork.core.components import Component

if TYPE_CHECKING:
    from graftwork.interfaces.backbone import Backbone

__all__ = ["UNTRAINED", "UntrainedTrunk", "build_untrained"]

_OSNET = "graftwork.nn.backbones.osnet:OSNet"
_QUARTER = [16, 64, 96, 128]
_AIN = {"placement": ["inside", "inside", "plain", "inside", "inside", "plain"], "stem_norm": "instance"}


@dataclass(frozen=True, kw_only=True, slots=True)
class UntrainedTrunk:
    """A trunk that begins with random weights."""

    modality: str
    """Kind of input that it reads."""
    summary: str
    component: Component
    """What a plan writes under ``backbone``."""
    parameters: int
    width: int
    """Number of features."""


UNTRAINED: Mapping[str, UntrainedTrunk] = {
    "osnet": UntrainedTrunk(
        modality="image",
        summary="omni-scale network x1.0, new",
        component=Component(_OSNET),
        parameters=2_169_508,
        width=512,
    ),
    "osnet_x0_25": UntrainedTrunk(
        modality="image",
        summary="omni-scale network x0.25, new",
        component=Component(_OSNET, {"widths": _QUARTER}),
        parameters=201_864,
        width=512,
    ),
    "osnet_ain": UntrainedTrunk(
        modality="image",
        summary="omni-scale network x1.0 with instance norms, new",
        component=Component(_OSNET, _AIN),
        parameters=2_169_508,
        width=512,
    ),
    "osnet_ain_x0_25": UntrainedTrunk(
        modality="image",
        summary="omni-scale network x0.25 with instance norms, new",
        component=Component(_OSNET, {"widths": _QUARTER, **_AIN}),
        parameters=201_864,
        width=512,
    ),
}
"""Name -> trunk."""


def build_untrained(name: str, *, dense: bool = False) -> Backbone:
    """Build a trunk of :data:`UNTRAINED`, drawing from torch's global generator.

    Args:
        name: A key of it.
        dense: Whether to give a map of features.
    """
    from graftwork.interfaces.backbone import Backbone

    trunk: Backbone = UNTRAINED[name].component.build(seam=Backbone, feature_map=dense)
    return trunk

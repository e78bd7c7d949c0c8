"""Pretrained backbones that ship with the package: what they are, and how they are loaded. Listing imports no torch.

Each is two files of one stem in the folder ``weights`` beside this module, found by looking: the weights in half precision
(safetensors), and a JSON file that says what they are, what they learned from, under which licence, and how they fared.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.components import Component
from graftwork.core.errors import FileFormatError
from graftwork.core.files import hash_bytes, read_json

if TYPE_CHECKING:
    from graftwork.interfaces.backbone import Backbone

__all__ = ["FORMAT", "LARGEST_FILE", "METADATA_KEY", "WEIGHTS", "ShippedBackbone", "load_shipped", "shipped_backbones"]

WEIGHTS = Path(__file__).parent / "weights"
"""Where the files are."""
FORMAT = "graftwork-backbone-1"
METADATA_KEY = "graftwork"
"""The only entry of the metadata of a file with weights: the description as JSON."""
LARGEST_FILE = 10_000_000
"""Bytes that a file with weights may have."""
_AGAIN = "Install graftwork again, or build it again with: graftwork backbones build"


@dataclass(frozen=True, slots=True)
class ShippedBackbone:
    """A backbone that ships, described by its JSON file."""

    description: Mapping[str, Any]
    file: Path

    @property
    def name(self) -> str:
        """As users write it."""
        return str(self.description["name"])

    @property
    def modality(self) -> str:
        """Kind of input that it reads."""
        return str(self.description["modality"])

    @property
    def component(self) -> Component:
        """How the network is built; what a plan writes under ``backbone`` to have it with fresh weights."""
        return Component.from_json(self.description["component"])

    @property
    def learned_from(self) -> str:
        """Names of what it learned from."""
        return ", ".join(source["name"] for source in self.description["learned_from"])


def shipped_backbones(folder: Path = WEIGHTS) -> dict[str, ShippedBackbone]:
    """Return all by name.

    Raises:
        FileFormatError: If a description is damaged or of another format.
    """
    return dict(_read(folder))


@functools.cache
def _read(folder: Path) -> dict[str, ShippedBackbone]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        description = read_json(path)
        needed = {"name", "modality", "summary", "component", "parameters", "width", "fingerprint", "licence", "learned_from"}
        if not isinstance(description, dict) or description.get("format") != FORMAT or not needed <= set(description):
            raise FileFormatError(f"{path} does not describe a backbone in the format {FORMAT}. {_AGAIN} {path.stem}")
        found[str(description["name"])] = ShippedBackbone(description, path.with_suffix(".safetensors"))
    return found


def load_shipped(shipped: ShippedBackbone, **settings: Any) -> Backbone:
    """Return the backbone with its weights, in single precision.

    Args:
        shipped: Which one.
        settings: Settings of its component to change, for example ``layout`` or ``size``.

    Raises:
        FileFormatError: If a file is missing or is not what its description says: another hash, other tensors, or another
            fingerprint once loaded.
    """
    import safetensors.torch

    again = f"{_AGAIN} {shipped.name}"
    try:
        content = shipped.file.read_bytes()
    except OSError as error:
        raise FileFormatError(f"The weights of {shipped.name} cannot be read: {error}. {again}") from error
    digest = hash_bytes(content)
    if digest != shipped.description["sha256"]:
        raise FileFormatError(
            f"{shipped.file} is damaged: its SHA-256 is {digest[:16]}..., expected {shipped.description['sha256'][:16]}.... {again}"
        )
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in safetensors.torch.load(content).items()
    }
    from graftwork.interfaces.backbone import Backbone
    from graftwork.math.fingerprint import state_fingerprint

    # Of the weights alone: layout and working size are the user's choice.
    if state_fingerprint(state) != shipped.description["fingerprint"]:
        raise FileFormatError(f"The weights in {shipped.file} are not those that its description names. {again}")
    backbone: Backbone = shipped.component.build(seam=Backbone, **settings)
    try:
        backbone.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise FileFormatError(f"{shipped.file} does not fit {shipped.component.path}: {str(error)[:300]}. {again}") from error
    return backbone

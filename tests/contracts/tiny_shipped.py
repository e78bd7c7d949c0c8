"""A tiny backbone as one that ships, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from graftwork.core.files import hash_bytes
from graftwork.interfaces.backbone import Backbone
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.backbones.shipped import FORMAT, METADATA_KEY, ShippedBackbone, shipped_backbones

__all__ = ["TINY", "ship_tiny"]

TINY: dict[str, Any] = {"path": "graftwork.nn.backbones.mini_vit:MiniViT", "settings": {"width": 8, "depth": 2, "num_heads": 2}}


def ship_tiny(folder: Path) -> dict[str, ShippedBackbone]:
    """Write ``tiny-vit`` into ``folder`` and return what ships from there."""
    from graftwork.core.components import Component

    torch.manual_seed(0)
    backbone: Backbone = Component.from_json(TINY).build(seam=Backbone)
    state = {name: value.half() for name, value in backbone.state_dict().items()}
    numbers = {"noise": 60.0}
    description = {
        "format": FORMAT,
        "name": "tiny-vit",
        "modality": "image",
        "summary": "for tests",
        "story": "For tests.",
        "component": TINY,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "width": 8,
        "fingerprint": state_fingerprint({name: value.float() for name, value in state.items()}),
        "licence": "CC-BY-4.0",
        "learned_from": [
            {"name": "noise", "what": "pixels", "licence": "CC-BY-4.0", "credit": "drawn here, licensed under CC-BY"}
        ],
        "held_out": {"noise": "which is which"},
        "check": {
            "pretrained": numbers,
            "untrained": numbers,
            "scratch": numbers,
            "mean_gain": 9.0,
            "mean_margin": 8.0,
            "least_margin": 2.0,
        },
        "budget": {"steps": 1, "batch": 2, "pictures": 3},
    }
    content = safetensors.torch.save(state, {METADATA_KEY: json.dumps(description)})
    folder.mkdir(exist_ok=True)
    (folder / "tiny-vit.safetensors").write_bytes(content)
    beside = {**description, "bytes": len(content), "sha256": hash_bytes(content)}
    (folder / "tiny-vit.json").write_text(json.dumps(beside))
    return shipped_backbones(folder)

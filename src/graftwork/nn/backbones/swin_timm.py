"""Swin transformers of timm as the own :class:`~graftwork.nn.backbones.swin.SwinBackbone`, whose blocks can be forked: same
weights, same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.backbones.timm_bridge import TimmBackbone

__all__ = ["as_swin", "is_timm_swin"]

_BLOCK = {
    "norm1": "attention_norm",
    "attn.qkv": "project",
    "attn.proj": "output",
    "attn.relative_position_bias_table": "position_bias",
    "norm2": "feed_norm",
    "mlp.fc1": "expand",
    "mlp.fc2": "contract",
}
_WHOLE = {"patch_embed.proj": "patches", "patch_embed.norm": "patch_norm", "norm": "norm"}


def is_timm_swin(backbone: Backbone) -> bool:
    """Return whether this is timm's first Swin (version 2 attends in another way and is none)."""
    if not isinstance(backbone, TimmBackbone) or not hasattr(backbone.model, "layers"):
        return False
    return any(name.endswith("attn.relative_position_bias_table") for name, _ in backbone.model.named_parameters())


def as_swin(backbone: Backbone) -> SwinBackbone:
    """Return ``backbone`` itself if it is the own Swin, or the own Swin with the weights of timm's.

    Raises:
        ConfigError: If it is neither.
    """
    if isinstance(backbone, SwinBackbone):
        return backbone
    if not isinstance(backbone, TimmBackbone) or not is_timm_swin(backbone):
        raise ConfigError(
            f"This method forks the blocks of a pretrained hierarchical transformer (Swin), and {type(backbone).__name__} is "
            "none. Name one with --backbone, for example timm:swin_tiny_patch4_window7_224, or leave the plan out."
        )
    model: Any = backbone.model
    first: Any = [layer.blocks[0] for layer in model.layers]
    if any(getattr(module, "head_dim", None) for module in first):
        raise ConfigError(
            "This Swin sets the width of a head apart from the width of its stage; take one of timm's standard ones."
        )
    swin = SwinBackbone(
        backbone.size,
        patch=int(model.patch_embed.proj.kernel_size[0]),
        widths=[int(block.norm1.normalized_shape[0]) for block in first],
        depths=[len(layer.blocks) for layer in model.layers],
        num_heads=[int(block.attn.num_heads) for block in first],
        # timm shrinks the window of a stage whose map is smaller, so the largest one is that of the model.
        window=max(int(block.window_size[0]) for block in first),
        expansion=first[0].mlp.fc1.out_features / first[0].mlp.fc1.in_features,
        feature_map=backbone.layout == "map",
        mean=backbone.mean.flatten().tolist(),
        std=backbone.std.flatten().tolist(),
    )
    try:
        swin.load_state_dict({_own_name(name): tensor for name, tensor in model.state_dict().items() if _is_weight(name, tensor)})
    except RuntimeError as error:
        raise ConfigError(f"The weights of this Swin are laid out in another way than expected: {str(error)[:300]}") from error
    return swin


def _is_weight(name: str, tensor: Tensor) -> bool:
    # Masks and pair indices are buffers that the own blocks make for themselves.
    return torch.is_floating_point(tensor) and not name.startswith("head.") and not name.endswith("attn_mask")


def _own_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] != "layers":
        stem = next((stem for stem in _WHOLE if name.startswith(f"{stem}.")), None)
        return name if stem is None else f"{_WHOLE[stem]}{name[len(stem) :]}"
    stage = int(parts[1])
    if parts[2] == "downsample":  # timm merges at the start of a stage, we at the end of the one before
        return f"_stages.{stage - 1}.merge.{'.'.join(parts[3:])}"
    rest = ".".join(parts[4:])
    stem = next((stem for stem in _BLOCK if rest == stem or rest.startswith(f"{stem}.")), None)
    inner = rest if stem is None else f"{_BLOCK[stem]}{rest[len(stem) :]}"
    return f"_stages.{stage}.blocks.{parts[3]}.{inner}"

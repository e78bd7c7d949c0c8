"""timm's vision transformers and Swins as chains of blocks: the same numbers as
:class:`~graftwork.nn.backbones.timm_bridge.TimmBackbone`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.optional import has
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape
from graftwork.nn.backbones.timm_bridge import TimmBackbone
from graftwork.nn.modes import evaluating

__all__ = ["TimmSwin", "TimmViT", "block_class"]


class _TimmBlocks(TimmBackbone, BlockBackbone):
    """What both have in common: shapes are measured."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[B, width]`` or ``[B, width, h, w]``, as ``layout`` says."""
        return TimmBackbone.forward(self, inputs)

    def final_norm(self, states: Tensor) -> Tensor:
        """Return normalised states."""
        normed: Tensor = self.model.norm(states)
        return normed

    def block_shapes(self) -> list[FeatureShape]:
        """Return the layouts after each block at the present working size; costs a forward pass of one blank picture."""
        inputs = {"image": torch.zeros(1, self.size, self.size, 3, device=self.mean.device)}
        found = []
        with evaluating(self), torch.no_grad():
            states = self.embed(inputs)
            for number in range(len(self.block_list())):
                states = self.run_block(number, states, inputs)
                shape = self.read_states(number, states).shape
                if len(shape) == 4:
                    found.append(FeatureShape("map", shape[1], (shape[2], shape[3])))
                else:
                    found.append(FeatureShape("tokens", shape[2], (shape[1],)))
        return found


class TimmViT(_TimmBlocks):
    """A ``VisionTransformer`` of timm. States are tokens, class and register tokens first; features leave these out.

    Layout ``"map"`` puts the tokens of the last block back into their places, ``[B, width, h, w]``.
    """

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the tokens before the first block."""
        # The steps of timm's own forward_features up to its blocks.
        return self.model.norm_pre(self.model.patch_drop(self.model._pos_embed(self.model.patch_embed(self.prepare(inputs)))))

    def block_list(self) -> list[nn.Module]:
        """Return the blocks."""
        return list(self.model.blocks)

    def read_states(self, number: int, states: Tensor) -> Tensor:
        """Return the tokens of the patches, ``[B, length, width]``."""
        return states[:, self.model.num_prefix_tokens :]

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features from the tokens after the last block."""
        return self.arrange(self.final_norm(states))

    def arrange(self, features: Tensor) -> Tensor:
        """Return normalised tokens as ``layout`` says."""
        if self.layout == "vector":
            return super().arrange(features)
        height, width = self.model.patch_embed.grid_size
        return self.read_states(-1, features).transpose(1, 2).unflatten(2, (height, width))


class TimmSwin(_TimmBlocks):
    """A ``SwinTransformer`` of timm. States have channels last; the mergings between stages are blocks of their own."""

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the states before the first block, ``[B, h, w, C]``."""
        return self.model.patch_embed(self.prepare(inputs))

    def block_list(self) -> list[nn.Module]:
        """Return mergings and blocks in the order in which they run."""
        # timm merges at the start of a stage; the first stage has an Identity there.
        parts = [[stage.downsample, *stage.blocks] for stage in self.model.layers]
        return [part for stage in parts for part in stage if not isinstance(part, nn.Identity)]

    def read_states(self, number: int, states: Tensor) -> Tensor:
        """Return a map, ``[B, C, h, w]``."""
        return states.permute(0, 3, 1, 2)

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features from the states after the last block."""
        return self.arrange(self.final_norm(states))


def block_class(model: Any) -> type[TimmViT] | type[TimmSwin] | None:
    """Return how to take a timm model as a chain of blocks; None if it is no plain vision transformer or Swin."""
    if not has("timm"):
        return None
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    if type(model) is VisionTransformer:  # relatives run their blocks in another way
        return TimmViT
    return TimmSwin if type(model) is SwinTransformer else None

"""Prompt tuning: learned tokens in every block of a frozen transformer.

Paper: Jia et al., "Visual Prompt Tuning", ECCV 2022, https://arxiv.org/abs/2203.12119 (VPT-Deep); for texts: Lester, Al-Rfou and
Constant, EMNLP 2021, https://arxiv.org/abs/2104.08691. The tokens of a block are taken away behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.methods.tuning.grafted import GraftedTuning
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.grafts import Graft
from graftwork.nn.prompts import PromptedBlock
from graftwork.nn.taps import blocks_of

__all__ = ["PromptTuning", "takes_prompts"]


class PromptTuning(GraftedTuning):
    """Prompts learn; everything else is frozen. Right after attaching, outputs change a little: tokens read prompts too.

    Args:
        num_tokens: Prompts of each block, at least 1.
        depth_share: Share of the blocks that get prompts, counted from the output, in ``(0, 1]``.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if the model is no chain of blocks over tokens, or its
            attention has positions or a mask of its own.
    """

    def __init__(self, *, num_tokens: int = 8, depth_share: float = 1.0) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ConfigError(f"`num_tokens` must be at least 1; got {num_tokens!r}.")
        if not 0.0 < depth_share <= 1.0:
            raise ConfigError(f"`depth_share` must be in (0, 1]; got {depth_share!r}.")
        self.num_tokens, self.depth_share = num_tokens, depth_share

    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return prompts for each block."""
        trunk = blocks_of(model, "Prompt tuning")  # type: ignore[arg-type] # it says so if this is none
        shapes, blocks = trunk.block_shapes(), trunk.block_list()
        if not takes_prompts(trunk):
            raise ConfigError(
                f"Prompt tuning adds tokens to blocks that take any number of them; those of this {type(model).__name__} have a "
                "fixed layout, mask or positions. Choose LoRA or adapters."
            )
        names = {id(module): name for name, module in model.named_modules()}
        kept = range(len(blocks) - math.ceil(self.depth_share * len(blocks)), len(blocks))
        return {
            names[id(blocks[number])]: PromptedBlock(blocks[number], width=shapes[number].width, num_tokens=self.num_tokens)
            for number in kept
        }


def takes_prompts(trunk: BlockBackbone) -> bool:
    """Return whether the blocks of a chain take any number of tokens: no fixed layout, mask or positions inside of them."""
    fixed = [
        block
        for block in trunk.block_list()
        if isinstance(block, AttentionBlock) and (block.attention.rotary or block.attention.bias is not None)
    ]
    return not fixed and all(shape.layout == "tokens" for shape in trunk.block_shapes())

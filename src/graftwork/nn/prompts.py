"""Learned tokens beside the tokens of a block, taken away again behind it (deep prompts).

Paper: Jia et al., "Visual Prompt Tuning", ECCV 2022, https://arxiv.org/abs/2203.12119 (VPT-Deep, equation 5). Departure: prompts
stand behind the other tokens, not between class token and patches; attention without positions of its own does not tell.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.grafts import Graft

__all__ = ["PromptedBlock"]


class PromptedBlock(Graft):
    """A transformer block whose tokens read ``num_tokens`` learned ones, too.

    Args:
        base: Takes states ``[B, L, width]``, and may take an attention mask ``[B or 1, 1 or heads, 1 or L, L]`` as its second
            argument or as ``attention_mask``: bool (True is read) or additive.
        width: Model width.
        num_tokens: Learned tokens, at least 1.

    Raises:
        ConfigError: If there are none.
    """

    def __init__(self, base: nn.Module, *, width: int, num_tokens: int) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ConfigError(f"`num_tokens` must be at least 1; got {num_tokens!r}.")
        self.base, self.width, self.num_tokens = base, width, num_tokens
        like = next(base.parameters(), torch.zeros(0))
        # As large as learned positions and class tokens start in transformers.
        self.prompt = nn.Parameter(0.02 * torch.randn(num_tokens, width, device=like.device, dtype=like.dtype))

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"width": self.width, "num_tokens": self.num_tokens}

    def forward(self, states: Tensor, *arguments: Any, **keywords: Any) -> Any:
        """Return what the block returns for the other tokens."""
        length = states.shape[1]
        # shape, not len: a traced graph must take batches of any size.
        longer = torch.cat([states, self.prompt.expand(states.shape[0], -1, -1)], dim=1)
        if arguments and isinstance(arguments[0], Tensor):
            arguments = (self._longer_mask(arguments[0], length), *arguments[1:])
        if isinstance(keywords.get("attention_mask"), Tensor):
            keywords["attention_mask"] = self._longer_mask(keywords["attention_mask"], length)
        output = self.base(longer, *arguments, **keywords)
        if isinstance(output, tuple):
            return (output[0][:, :length], *output[1:])
        return output[:, :length]

    def _longer_mask(self, mask: Tensor, length: int) -> Tensor:
        """Return the mask for the prompts as well: everybody reads them."""
        read = 1.0 if mask.dtype == torch.bool else 0.0
        mask = F.pad(mask, (0, self.num_tokens), value=read)
        # One row for all queries needs no rows of prompts.
        return F.pad(mask, (0, 0, 0, self.num_tokens), value=read) if mask.shape[-2] == length > 1 else mask

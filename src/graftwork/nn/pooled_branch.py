"""A narrow branch behind a module that reads an average of neighbouring places, so that it holds little for the backward pass.

Paper: the side module of S2A, https://arxiv.org/abs/2503.08154; its layout is not published in detail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.grafts import Graft

__all__ = ["PooledBranch"]

Layout = Literal["vector", "tokens", "map"]


class PooledBranch(Graft):
    """``y + spread(up(gelu(down(pool(y)))))`` for what ``base`` returns; ``up`` starts at zero.

    Tokens are averaged over ``pool`` neighbours (those that a mask hides do not count), maps over squares with sides of ``pool``
    places; vectors are taken as they are.

    Args:
        base: Returns a tensor, or a tuple whose first item is one. A mask of its tokens may be its second argument or called
            ``attention_mask``: ``[B or 1, 1 or heads, 1 or L, L]``, bool (True is read) or additive.
        width: Size of the channels of that tensor.
        bottleneck: Size of the branch's hidden layer, at least 1.
        pool: Neighbours that are averaged, at least 1.
        layout: ``"tokens"`` ``[B, L, width]``, ``"map"`` ``[B, width, h, w]`` or ``"vector"`` ``[B, width]``.

    Raises:
        ConfigError: If a number is below 1.
    """

    def __init__(self, base: nn.Module, *, width: int, bottleneck: int, pool: int, layout: Layout) -> None:
        super().__init__()
        if bottleneck < 1 or pool < 1:
            raise ConfigError(f"`bottleneck` and `pool` must be at least 1; got {bottleneck!r} and {pool!r}.")
        self.base = base
        self.width, self.bottleneck, self.pool, self.layout = width, bottleneck, pool, layout
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        like = next(base.parameters(), None)
        if like is not None:
            self.down.to(like)
            self.up.to(like)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"width": self.width, "bottleneck": self.bottleneck, "pool": self.pool, "layout": self.layout}

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return the tensors with ``up`` multiplied by ``factor``."""
        return {name: tensor * factor if name.startswith("up.") else tensor for name, tensor in tensors.items()}

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the base returns, with the branch's answer added to its (first) tensor."""
        output = self.base(*arguments, **keywords)
        mask = keywords.get("attention_mask", arguments[1] if len(arguments) > 1 else None)
        if isinstance(output, tuple):
            return (self._with_branch(output[0], mask), *output[1:])
        return self._with_branch(output, mask)

    def _with_branch(self, states: Tensor, mask: Any) -> Tensor:
        if self.layout == "map":
            # [B, width, h, w] to [B, h / pool, w / pool, width]; the last squares may be cut.
            small = F.avg_pool2d(states, self.pool, ceil_mode=True, count_include_pad=False).permute(0, 2, 3, 1)
            added = self._branch(small).permute(0, 3, 1, 2)
            for dim in (2, 3):
                added = added.repeat_interleave(self.pool, dim=dim).narrow(dim, 0, states.shape[dim])
            return states + added
        if self.layout == "vector":
            return states + self._branch(states)
        added = self._branch(self._pooled_tokens(states, _read_tokens(mask, states)))
        return states + added.repeat_interleave(self.pool, dim=1)[:, : states.shape[1]]

    def _branch(self, states: Tensor) -> Tensor:
        answer: Tensor = self.up(F.gelu(self.down(states)))
        return answer

    def _pooled_tokens(self, states: Tensor, weights: Tensor) -> Tensor:
        """Return weighted means of neighbours, ``[B, ceil(L / pool), width]``; 0 where no token is read."""
        short = -states.shape[1] % self.pool
        states, weights = F.pad(states, (0, 0, 0, short)), F.pad(weights, (0, 0, 0, short))
        shares = weights.unflatten(1, (-1, self.pool))
        shares = shares / shares.sum(dim=2, keepdim=True).clamp(min=1.0)
        # A product with frozen weights: the states themselves are not held.
        return torch.einsum("bnpw,bnpo->bnw", states.unflatten(1, (-1, self.pool)), shares)


def _read_tokens(mask: Any, states: Tensor) -> Tensor:
    """Return 1 for tokens that are read and 0 for others, ``[B, L, 1]``."""
    batch, length = states.shape[:2]
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[-1] != length:
        return states.new_ones(batch, length, 1)
    # Whatever the last query reads of the first head.
    row = mask[:, 0, -1]
    read = row if row.dtype == torch.bool else row == 0
    return read.to(states.dtype).expand(batch, length).unsqueeze(-1)

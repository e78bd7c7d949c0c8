"""Invertible adapters: what embeddings give is changed by a small network that can be undone before the output layer.

Paper: Pfeiffer et al., "MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer", EMNLP 2020,
https://arxiv.org/abs/2005.00052 (section 3.3), with the additive coupling of Dinh, Krueger and Bengio, "NICE", 2015,
https://arxiv.org/abs/1410.8516.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.grafts import Graft

__all__ = ["InvertibleAdapter"]


class InvertibleAdapter(Graft):
    """``o1 = e1 + F(e2)``, ``o2 = e2 + G(o1)`` for the halves ``e1``, ``e2`` of what ``base`` returns; ``F`` and ``G`` start at zero.

    Args:
        base: Returns ``[..., width]``, an embedding say.
        width: Even.
        bottleneck: Hidden width of ``F`` and ``G``, at least 1.

    Raises:
        ConfigError: If the width is odd, or the bottleneck is below 1.
    """

    def __init__(self, base: nn.Module, *, width: int, bottleneck: int) -> None:
        super().__init__()
        if width % 2 or bottleneck < 1:
            raise ConfigError(
                f"An invertible adapter needs an even width and a bottleneck of at least 1; got {width}, {bottleneck}."
            )
        self.base, self.width, self.bottleneck = base, width, bottleneck
        self.first, self.second = self._coupling(), self._coupling()

    def _coupling(self) -> nn.Sequential:
        last = nn.Linear(self.bottleneck, self.width // 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(self.width // 2, self.bottleneck), nn.ReLU(), last)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"width": self.width, "bottleneck": self.bottleneck}

    def forward(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Return what the base returns, changed, ``[..., width]``."""
        one, two = self.base(*arguments, **keywords).chunk(2, dim=-1)
        one = one + self.first(two)
        return torch.cat([one, two + self.second(one)], dim=-1)

    def inverse(self, states: Tensor) -> Tensor:
        """Return what is changed into ``states``, ``[..., width]``."""
        one, two = states.chunk(2, dim=-1)
        two = two - self.second(one)
        return torch.cat([one - self.first(two), two], dim=-1)

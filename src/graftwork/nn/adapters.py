"""Bottleneck adapters: after a module, a small network is added to what it returns.

Paper: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, https://arxiv.org/abs/1902.00751 (section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.grafts import AddingGraft

__all__ = ["BottleneckAdapter"]


class BottleneckAdapter(AddingGraft):
    """``y + up(gelu(down(y)))`` for what ``base`` returns; ``up`` starts at zero.

    Args:
        base: Any module that returns a tensor, or a tuple whose first item is one.
        width: Size of the channels of that tensor.
        bottleneck: Size of the small network's hidden layer, at least 1.
        channels: Whether channels are the last dimension (tokens, vectors) or the second one (maps ``[B, C, H, W]``).

    Raises:
        ConfigError: If the bottleneck is below 1.
    """

    def __init__(self, base: nn.Module, *, width: int, bottleneck: int, channels: Literal["last", "second"] = "last") -> None:
        super().__init__()
        if bottleneck < 1:
            raise ConfigError(f"`bottleneck` must be at least 1; got {bottleneck!r}.")
        self.base = base
        self.width, self.bottleneck, self.channels = width, bottleneck, channels
        if channels == "last":
            self.down: nn.Module = nn.Linear(width, bottleneck)
            self.up: nn.Module = nn.Linear(bottleneck, width)
        else:
            self.down, self.up = nn.Conv2d(width, bottleneck, 1), nn.Conv2d(bottleneck, width, 1)
        like = next(base.parameters(), None)
        if like is not None:
            self.down.to(like)
            self.up.to(like)
        nn.init.zeros_(self.up.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"width": self.width, "bottleneck": self.bottleneck, "channels": self.channels}

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return the tensors with ``up`` multiplied by ``factor``."""
        return {name: tensor * factor if name.startswith("up.") else tensor for name, tensor in tensors.items()}

    def adapted(self, states: Tensor) -> Tensor:
        """Return the states with the network's answer added."""
        added: Tensor = self.up(F.gelu(self.down(states)))
        return states + added

"""Several bottleneck adapters behind one module, combined by learned scales or by attention; the adapters themselves stay as they are.

Papers: Frohmann et al., "ScaLearn: Simple and Highly Parameter-Efficient Task Transfer by Learning to Scale", Findings of ACL 2024,
https://arxiv.org/abs/2310.01217; Pfeiffer et al., "AdapterFusion: Non-Destructive Task Composition for Transfer Learning", EACL
2021, https://arxiv.org/abs/2005.00247.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.foldable import FoldableLayer
from graftwork.nn.grafts import AddingGraft

__all__ = ["AdapterBank", "AdapterFusion", "ScaledAdapters"]


class AdapterBank(AddingGraft):
    """``y + combination of o_1(y) .. o_T(y)`` for what ``base`` returns, with ``o_t(y) = up_t(gelu(down_t(y)))``, no residual inside.

    Adapters of several sizes are padded with zeros, which add nothing.

    Args:
        base: Any module that returns a tensor, or a tuple whose first item is one.
        width: Size of the channels of that tensor.
        bottleneck: Hidden size of the largest adapter, at least 1.
        count: Number of adapters ``T``, at least 1.
        channels: Whether channels are the last dimension or the second one (maps ``[B, C, H, W]``).

    Raises:
        ConfigError: If a number is below 1.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __init__(
        self, base: nn.Module, *, width: int, bottleneck: int, count: int, channels: Literal["last", "second"] = "last"
    ) -> None:
        super().__init__()
        if min(width, bottleneck, count) < 1:
            raise ConfigError(
                f"A bank needs a width, a bottleneck and a count of at least 1; got {width}, {bottleneck}, {count}."
            )
        self.base, self.width, self.bottleneck, self.count, self.channels = base, width, bottleneck, count, channels
        like = next(base.parameters(), torch.zeros(0))
        for name, shape in (
            ("down", (count, bottleneck, width)),
            ("down_bias", (count, bottleneck)),
            ("up", (count, width, bottleneck)),
            ("up_bias", (count, width)),
        ):
            self.register_buffer(name, like.new_zeros(shape))

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"width": self.width, "bottleneck": self.bottleneck, "count": self.count, "channels": self.channels}

    def load_adapters(self, adapters: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the tensors of ``T`` :class:`~graftwork.nn.adapters.BottleneckAdapter` s."""
        for place, tensors in enumerate(adapters):
            size = len(tensors["down.bias"])
            # flatten: adapters of maps are 1x1 convolutions
            self.down[place, :size] = tensors["down.weight"].flatten(1).to(self.down)
            self.down_bias[place, :size] = tensors["down.bias"].to(self.down)
            self.up[place, :, :size] = tensors["up.weight"].flatten(1).to(self.up)
            self.up_bias[place] = tensors["up.bias"].to(self.up)

    def adapted(self, states: Tensor) -> Tensor:
        """Return the states with the combination added."""
        if self.channels == "last":
            return states + self.combined(states)
        return states + self.combined(states.movedim(1, -1)).movedim(-1, 1)

    def hidden(self, states: Tensor) -> Tensor:
        """Return what all adapters compute inside, ``[..., T * bottleneck]``, of states ``[..., width]``."""
        return F.gelu(F.linear(states, self.down.flatten(0, 1), self.down_bias.flatten()))

    @abstractmethod
    def combined(self, states: Tensor) -> Tensor:
        """Return what is added to the states, ``[..., width]`` each."""


class ScaledAdapters(AdapterBank, FoldableLayer):
    """The combination of ScaLearn: ``sum_t omega_t * o_t(y)`` with scales that need not sum to one.

    It is one adapter of hidden size ``T * bottleneck`` whose ``up`` holds the scales, and :meth:`folded` returns that.

    Args:
        base: See :class:`AdapterBank`, as are the next four.
        width: See above.
        bottleneck: See above.
        count: See above.
        channels: See above.
        uniform: One scale for each adapter in place of one for each adapter and channel.
        dropout: Probability of dropping a scale in training, in ``[0, 1)``.

    Raises:
        ConfigError: If the dropout is out of range, or a number is below 1.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        width: int,
        bottleneck: int,
        count: int,
        channels: Literal["last", "second"] = "last",
        uniform: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(base, width=width, bottleneck=bottleneck, count=count, channels=channels)
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"`dropout` must be in [0, 1); got {dropout!r}.")
        self.uniform, self.dropout = uniform, dropout
        self.scale = nn.Parameter(self.up.new_zeros(count, 1 if uniform else width))

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {**super().settings, "uniform": self.uniform, "dropout": self.dropout}

    def combined(self, states: Tensor) -> Tensor:
        """Return the scaled sum of the adapters' outputs."""
        weight, bias = self._up(F.dropout(self.scale, self.dropout, self.training))
        return F.linear(self.hidden(states), weight, bias)

    def _up(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight ``[width, T * bottleneck]`` and bias ``[width]`` with scales ``[T, width]`` or ``[T, 1]`` in them."""
        weight = (scale.unsqueeze(-1) * self.up).permute(1, 0, 2).flatten(1)
        return weight, (scale * self.up_bias).sum(dim=0)

    def wide_settings(self) -> dict[str, Any]:
        """Return the keywords of the one adapter that it comes to."""
        return {"width": self.width, "bottleneck": self.count * self.bottleneck, "channels": self.channels}

    @torch.no_grad()
    def wide_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the one adapter that it comes to, as copies."""
        weight, bias = self._up(self.scale)
        kernel = () if self.channels == "last" else (1, 1)
        return {
            "down.weight": self.down.flatten(0, 1).view(-1, self.width, *kernel).clone(),
            "down.bias": self.down_bias.flatten().clone(),
            "up.weight": weight.view(self.width, -1, *kernel).clone(),
            "up.bias": bias.clone(),
        }

    def folded(self) -> nn.Module:
        """Return the one adapter that it comes to, around the base: no plain layer, but the plainest that computes the same."""
        adapter = BottleneckAdapter(self.base, **self.wide_settings())
        adapter.load_state_dict(
            {**{f"base.{name}": value for name, value in self.base.state_dict().items()}, **self.wide_tensors()}
        )
        return adapter.train(self.training)

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return the tensors with the scales multiplied by ``factor``."""
        return {name: tensor * factor if name == "scale" else tensor for name, tensor in tensors.items()}


class AdapterFusion(AdapterBank):
    """The combination of AdapterFusion: ``sum_t softmax_t(q(y) . k(o_t)) * v(o_t)``, an attention over adapters at each place.

    The value map begins near the identity, query and key maps as torch draws them.

    Args:
        base: See :class:`AdapterBank`, as are the next four.
        width: See above.
        bottleneck: See above.
        count: See above.
        channels: See above.
    """

    def __init__(
        self, base: nn.Module, *, width: int, bottleneck: int, count: int, channels: Literal["last", "second"] = "last"
    ) -> None:
        super().__init__(base, width=width, bottleneck=bottleneck, count=count, channels=channels)
        self.query, self.key = nn.Linear(width, width).to(self.up), nn.Linear(width, width).to(self.up)
        self.value = nn.Linear(width, width, bias=False).to(self.up)
        nn.init.normal_(self.value.weight, std=1e-3 / math.sqrt(width))
        with torch.no_grad():
            self.value.weight.diagonal().add_(1.0)

    def combined(self, states: Tensor) -> Tensor:
        """Return the attended sum of the adapters' outputs."""
        hidden = self.hidden(states).unflatten(-1, (self.count, self.bottleneck))
        # [..., T, width]
        outputs = torch.einsum("...tr,tdr->...td", hidden, self.up) + self.up_bias
        scores = (self.query(states).unsqueeze(-2) * self.key(outputs)).sum(dim=-1)
        mixed = (scores.softmax(dim=-1).unsqueeze(-1) * outputs).sum(dim=-2)
        # Linear, so it comes to the same after the sum, for a T-th of the time.
        return self.value(mixed)

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return the tensors with the value map multiplied by ``factor``."""
        return {name: tensor * factor if name == "value.weight" else tensor for name, tensor in tensors.items()}

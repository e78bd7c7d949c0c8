"""UniPT: a network beside a frozen trunk relates the states of all depths to the last one and answers in the trunk's place.

Paper: Diao et al., "UniPT: Universal Parallel Tuning for Transfer Learning with Efficient Parameter and Memory", CVPR 2024,
https://arxiv.org/abs/2308.14316 (code: Paranioar/UniPT).

Symbols: ``h_i`` = the states that are read, ``N`` of them; ``z_i`` = ``down[i](h_i)``, of width ``d`` = ``hidden``; anchor =
``z_{N-1}``; ``C_i`` = ``l1(relu(anchor z_i^T)) + I``; ``m_i = C_i z_i``; confidence = softmax over ``i`` of
``gate(mean(anchor) * mean(z_i))``; ``M`` = the sum of all ``m_i`` weighted by confidence, the anchor's own left out.

Departures: any chain of blocks is read, the pooling behind the network is that of the trunk (means of tokens, maps as they are), and a
row whose products are all negative has the identity alone.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.methods.tuning.side_tuning import SideTuning, TokenSide, mean_of_tokens

__all__ = ["ParallelNetwork", "UniPT", "related_tokens"]

Confidence = Literal["learned", "uniform"]
Mixing = Literal["attention", "uniform"]
_EPSILON = 1e-8


class ParallelNetwork(TokenSide):
    """The network; see this module's docstring.

    Args:
        trunk: A chain of blocks over tokens or maps.
        hidden: Width ``d`` of the network.
        confidence: ``"uniform"`` weighs all depths alike, for comparison.
        mixing: ``"uniform"`` takes the mean of all tokens in place of the attention, for comparison; the identity stays.
    """

    def __init__(
        self, trunk: BlockBackbone, *, hidden: int, confidence: Confidence = "learned", mixing: Mixing = "attention"
    ) -> None:
        super().__init__(trunk)
        self.hidden, self.mixing = hidden, mixing
        self.down = nn.ModuleList(nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden)) for width in self.widths)
        self.gate = nn.Linear(hidden, 1) if confidence == "learned" else None
        self.project = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
        self.up = nn.Linear(hidden, self.width_out)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        confidence = "uniform" if self.gate is None else "learned"
        return {"hidden": self.hidden, "confidence": confidence, "mixing": self.mixing}

    def tokens(self, states: list[Tensor], mask: Tensor) -> Tensor:
        """Return the answer for each token; see :class:`.TokenSide`."""
        anchor: Tensor = self.down[-1](states[-1])
        summary = mean_of_tokens(anchor, mask)
        scores: list[Tensor] = []
        mixed: list[Tensor] = []
        for down, state in zip(list(self.down)[:-1], states[:-1], strict=True):
            target = down(state)
            scores.append(self._score(summary, mean_of_tokens(target, mask)))
            mixed.append(related_tokens(anchor, target, mask, self.mixing))
        confidence = torch.softmax(torch.cat(scores, dim=1), dim=1)
        # One after the other: all of them side by side would be held once more.
        total = sum(weight[:, None, None] * part for weight, part in zip(confidence.unbind(dim=1), mixed, strict=True))
        answer: Tensor = self.up(torch.relu(anchor + self.project(total)))
        return answer

    def _score(self, anchor: Tensor, target: Tensor) -> Tensor:
        """Return the logit of a depth's confidence, ``[B, 1]``."""
        if self.gate is None:
            return anchor.new_zeros(len(anchor), 1)
        score: Tensor = self.gate(anchor * target)
        return score


def related_tokens(anchor: Tensor, target: Tensor, mask: Tensor, mixing: Mixing = "attention") -> Tensor:
    """Return ``(l1(relu(anchor target^T)) + I) target``: each token of a depth, and those that the anchor's token is like.

    Args:
        anchor: ``[B, n, d]``.
        target: ``[B, n, d]``.
        mask: 1 for tokens that are read, ``[B, n]``.
        mixing: See :class:`ParallelNetwork`.
    """
    if mixing == "uniform":
        return mean_of_tokens(target, mask).unsqueeze(1) + target
    products = torch.relu(anchor @ target.transpose(1, 2) * mask.unsqueeze(1))
    shares = products / products.sum(dim=-1, keepdim=True).clamp(min=_EPSILON)
    # The identity is a sum: no matrix is made of it.
    return shares @ target + target


class UniPT(SideTuning):
    """A parallel network learns; the trunk is frozen and runs without gradients.

    Args:
        factor: Its width is that of the trunk's features divided by this, at least 1.
        hidden: Its width in place of that; None takes the factor.
        confidence: See :class:`ParallelNetwork`.
        mixing: See :class:`ParallelNetwork`.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if the model is no chain of blocks over tokens or maps.
    """

    def __init__(
        self,
        *,
        factor: int = 2,
        hidden: int | None = None,
        confidence: Confidence = "learned",
        mixing: Mixing = "attention",
        working_size: int | None = None,
    ) -> None:
        super().__init__(working_size)
        if factor < 1 or (hidden is not None and hidden < 1):
            raise ConfigError(f"`factor` and `hidden` must be at least 1; got {factor!r} and {hidden!r}.")
        for name, value, allowed in (
            ("confidence", confidence, ("learned", "uniform")),
            ("mixing", mixing, ("attention", "uniform")),
        ):
            if value not in allowed:
                raise ConfigError(f"`{name}` must be one of {', '.join(allowed)}; got {value!r}.")
        self.factor, self.hidden = factor, hidden
        self.confidence: Confidence = confidence
        self.mixing: Mixing = mixing

    def make(self, trunk: BlockBackbone) -> ParallelNetwork:
        """Return the network for a trunk."""
        hidden = max(1, trunk.feature_shape.width // self.factor) if self.hidden is None else self.hidden
        return ParallelNetwork(trunk, hidden=hidden, confidence=self.confidence, mixing=self.mixing)

"""Parts of the blocks of a trunk, replaced by a method's own: feed-forward networks and attention, wherever a block keeps them.

Known are the own blocks, those of timm's vision transformers and Swins, and the layers of the BERT family in transformers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.backbones.swin import SwinBlock

__all__ = ["has_feed_forward", "replace_attention", "replace_feed_forward"]

_FEEDS = ("feed", "mlp")
"""Where a block keeps a feed-forward network that is one module, ``[..., width]`` to ``[..., width]``."""


def _is_bert_layer(block: nn.Module) -> bool:
    output = getattr(block, "output", None)
    return isinstance(getattr(block, "intermediate", None), nn.Module) and hasattr(output, "LayerNorm")


def _feed_name(block: nn.Module) -> str | None:
    return next((name for name in _FEEDS if isinstance(getattr(block, name, None), nn.Module)), None)


def has_feed_forward(block: nn.Module) -> bool:
    """Return whether a block has a feed-forward network that can be replaced; mergings between stages have none."""
    return _feed_name(block) is not None or isinstance(block, SwinBlock) or _is_bert_layer(block)


def replace_feed_forward(block: nn.Module, layer: nn.Module, *, method: str) -> None:
    """Put a new module into the place of a block's feed-forward network; norms and residual connections stay.

    Args:
        block: The block.
        layer: The new module, from states ``[..., width]`` to states.
        method: Who asks, for the message.

    Raises:
        ConfigError: If the block keeps its feed-forward network in no place that is known.
    """
    name = _feed_name(block)
    if name is not None:
        setattr(block, name, layer)
    elif isinstance(block, SwinBlock):
        block.take_feed_forward(layer)
    elif _is_bert_layer(block):
        output: Any = block.output
        # BERT splits its feed-forward network over two modules and calls them in turn; the second one takes over.
        block.intermediate = nn.Identity()
        block.output = _PostNormFeed(layer, output.LayerNorm)
    else:
        raise ConfigError(
            f"{method} replaces the feed-forward networks of blocks, and {type(block).__name__} has none where it is looked for "
            f"({', '.join(_FEEDS)}, or intermediate and output as in BERT). Choose another backbone."
        )


def replace_attention(block: nn.Module, layer: nn.Module, *, method: str) -> None:
    """Put a new module into the place of a block's attention over all tokens.

    Raises:
        ConfigError: If the block attends in windows or under a mask, which the new module would not, or keeps its attention in no
            place that is known.
    """
    if isinstance(block, AttentionBlock) and block.attention.bias is None and not block.attention.rotary:
        block.add_module("attention", layer)
    # `window_size` marks blocks of Swin, whose attention is called on windows.
    elif isinstance(getattr(block, "attn", None), nn.Module) and not hasattr(block, "window_size"):
        block.attn = _PlainAttention(layer)
    else:
        raise ConfigError(
            f"{method} replaces attention over all tokens, and {type(block).__name__} attends in windows or under a mask. Leave "
            "the attention experts out (attention_experts = 0), or choose a plain vision transformer."
        )


class _PostNormFeed(nn.Module):
    """What follows attention in a layer of the BERT family: the norm comes after the residual connection."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.LayerNorm = norm

    def forward(self, hidden: Tensor, states: Tensor) -> Tensor:
        """Return the new states; ``hidden`` are the same states, which the layer before has passed on."""
        found: Tensor = self.LayerNorm(self.layer(hidden) + states)
        return found


class _PlainAttention(nn.Module):
    """Takes the arguments of timm's attention; there is no mask."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: Tensor, attn_mask: Tensor | None = None, **unused: Any) -> Tensor:
        """Return the attended states."""
        assert attn_mask is None
        found: Tensor = self.layer(states)
        return found

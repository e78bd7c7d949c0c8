"""Attention of a block that is there already, with learned keys and values in front (prefix prompts), for any vision transformer.

Paper: Li and Liang, "Prefix-Tuning", ACL 2021, https://arxiv.org/abs/2101.00190; in continual learning: Wang et al.,
"DualPrompt", ECCV 2022, https://arxiv.org/abs/2204.04799 (equation 4). The block's weights are read, not copied, and nothing of
the block changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.interfaces.backbone import Backbone, BlockBackbone
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.taps import blocks_of

__all__ = ["PreNormBlock", "class_token_trunk", "pre_norm_blocks", "prefix_attention", "prefixed_block"]


@dataclass(frozen=True, slots=True)
class PreNormBlock:
    """The parts of a block of a pre-norm transformer: ``x += attention(norm(x))``, then ``x += feed(norm(x))``."""

    attention_norm: nn.Module
    project: nn.Linear
    """From ``width`` to queries, keys and values one after the other, ``3 * width``."""
    num_heads: int
    output: nn.Module
    """From the mixed values to what is added."""
    feed_norm: nn.Module
    feed: nn.Module
    """To what is added."""
    query_norm: nn.Module = field(default_factory=nn.Identity)
    """Of the queries of one head; likewise :attr:`key_norm`. Prompts are not normalised."""
    key_norm: nn.Module = field(default_factory=nn.Identity)


def pre_norm_blocks(blocks: Sequence[nn.Module], method: str) -> list[PreNormBlock]:
    """Return the parts of the blocks of a vision transformer: the library's own or timm's.

    Args:
        blocks: The blocks of a trunk.
        method: Who asks, for the message.

    Raises:
        ConfigError: If a block is of another kind.
    """
    found = []
    for number, block in enumerate(blocks):
        parts = _own_parts(block) or _timm_parts(block)
        if parts is None:
            raise ConfigError(
                f"{method} puts keys and values into the attention of pre-norm transformer blocks, and block {number} of this "
                f"trunk is a {type(block).__name__}. Choose a ClassTokenViT or a plain vision transformer of timm (timm:NAME)."
            )
        found.append(parts)
    return found


def _own_parts(block: nn.Module) -> PreNormBlock | None:
    if not isinstance(block, AttentionBlock) or block.attention.rotary or block.attention.bias is not None:
        return None
    attention = block.attention
    return PreNormBlock(
        block.attention_norm, attention.project, attention.num_heads, attention.output, block.feed_norm, block.feed
    )


def _timm_parts(block: nn.Module) -> PreNormBlock | None:
    if not has("timm"):
        return None
    from timm.models.vision_transformer import Attention, Block

    timm_block: Any = block
    if type(block) is not Block or type(timm_block.attn) is not Attention:  # relatives compute something else
        return None
    attention = timm_block.attn
    # Gated attention and narrower inner widths are options of newer timm versions.
    if getattr(attention, "gate", None) is not None or attention.qkv.out_features != 3 * attention.qkv.in_features:
        return None
    norm = getattr(attention, "norm", nn.Identity())
    return PreNormBlock(
        timm_block.norm1,
        attention.qkv,
        attention.num_heads,
        nn.Sequential(norm, attention.proj, attention.proj_drop, timm_block.ls1, timm_block.drop_path1),
        timm_block.norm2,
        nn.Sequential(timm_block.mlp, timm_block.ls2, timm_block.drop_path2),
        attention.q_norm,
        attention.k_norm,
    )


def class_token_trunk(backbone: Backbone, method: str) -> BlockBackbone:
    """Return a trunk whose features are its class token, the first of its states.

    Args:
        backbone: Any backbone.
        method: Who asks, for the message.

    Raises:
        ConfigError: If it has no blocks, or its features depend on other tokens as well.
    """
    trunk = blocks_of(backbone, method)
    message = (
        f"{method} reads the class token of a vision transformer, and the features of this {type(backbone).__name__} are not its "
        "first token alone. Choose a ClassTokenViT, or a vision transformer of timm that pools by its class token."
    )
    if trunk.feature_shape.layout != "vector":
        raise ConfigError(message)
    # Asked of the trunk itself, so that nothing has to be known of its kind: other tokens must not change the features.
    weight = next(trunk.parameters())
    # A generator of its own: looking at a trunk must not move the random stream of a training.
    random = torch.Generator().manual_seed(0)
    states = torch.randn(1, 5, trunk.feature_shape.width, generator=random).to(weight)
    try:
        with torch.no_grad():
            alone, together = trunk.finish(states[:, :1], {}), trunk.finish(states, {})
    except (RuntimeError, IndexError, ValueError, KeyError) as error:
        raise ConfigError(message) from error
    if alone.shape != together.shape or not torch.allclose(alone, together, atol=1e-5):
        raise ConfigError(message)
    return trunk


def prefix_attention(parts: PreNormBlock, tokens: Tensor, prompts: Tensor | None = None, *, queries: int | None = None) -> Tensor:
    """Return what a block's attention adds to its states.

    Args:
        parts: The block.
        tokens: Normalised tokens ``[..., L, width]``.
        prompts: Keys and values ``[..., 2, P, width]`` that every token reads too; leading dimensions broadcast against those of
            ``tokens``. None adds nothing.
        queries: Only the first so many tokens ask; None lets all of them.

    Returns:
        ``[..., queries, width]``.
    """
    width = tokens.shape[-1]
    asking = tokens if queries is None else tokens[..., :queries, :]
    weight, bias = parts.project.weight, parts.project.bias
    # Queries of few tokens, keys and values of all: the joint projection is split so that nothing is computed in vain.
    query = F.linear(asking, weight[:width], None if bias is None else bias[:width])
    key, value = F.linear(tokens, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    query, key, value = (_heads(part, parts.num_heads) for part in (query, key, value))
    query, key = parts.query_norm(query), parts.key_norm(key)
    if prompts is not None:
        learned = _heads(prompts, parts.num_heads)  # [..., 2, heads, P, width of a head]
        shape = (*key.shape[:-2], learned.shape[-2], key.shape[-1])
        key = torch.cat([learned[..., 0, :, :, :].expand(shape), key], dim=-2)
        value = torch.cat([learned[..., 1, :, :, :].expand(shape), value], dim=-2)
    mixed = F.scaled_dot_product_attention(query, key, value)
    return parts.output(mixed.transpose(-2, -3).flatten(-2))


def prefixed_block(parts: PreNormBlock, states: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Return the states ``[..., L, width]`` after a block whose tokens read prompts too; without prompts, what the block itself
    gives."""
    states = states + prefix_attention(parts, parts.attention_norm(states), prompts)
    return states + parts.feed(parts.feed_norm(states))


def _heads(states: Tensor, num_heads: int) -> Tensor:
    """Return ``[..., L, width]`` as ``[..., heads, L, width of a head]``."""
    return states.unflatten(-1, (num_heads, -1)).transpose(-2, -3)

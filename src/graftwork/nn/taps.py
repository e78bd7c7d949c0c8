"""Taps: the features at several depths of a trunk, read while it runs as it always does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, BlockBackbone

__all__ = ["blocks_of", "tapped"]


def blocks_of(backbone: Backbone, method: str) -> BlockBackbone:
    """Return the backbone as a chain of blocks.

    Args:
        backbone: Any backbone.
        method: Who asks, for the message.

    Raises:
        ConfigError: If it has no blocks.
    """
    if not isinstance(backbone, BlockBackbone):
        raise ConfigError(
            f"{method} works on the blocks of a trunk, and {type(backbone).__name__} has none. Choose one that has: a "
            "ViTBackbone, a vision transformer or Swin of timm (timm:NAME), an OSNet, or a text encoder of the BERT family "
            "(minilm, hf:NAME)."
        )
    return backbone


@contextlib.contextmanager
def tapped(backbone: BlockBackbone, depths: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the features after some blocks in the forward passes of a ``with`` block, as part of their graph.

    Args:
        backbone: The trunk; it computes what it always does, and has no hooks afterwards.
        depths: Numbers of blocks, 0 is the first; negative ones count from the end.

    Yields:
        ``{depth: features}`` with the numbers as given, laid out as :meth:`BlockBackbone.block_shapes` says; filled by each
        forward pass, the last one counts.

    Raises:
        ConfigError: If there is no such block.

    Example:
        >>> import torch
        >>> from graftwork.nn.backbones.vit import ViTBackbone
        >>> trunk = ViTBackbone(16, width=8, depth=3, num_heads=2)
        >>> with tapped(trunk, [0, -1]) as features:
        ...     _ = trunk({"image": torch.zeros(2, 16, 16, 3)})
        >>> {depth: tuple(states.shape) for depth, states in features.items()}
        {0: (2, 16, 8), -1: (2, 16, 8)}
    """
    blocks = backbone.block_list()
    wrong = [depth for depth in depths if not -len(blocks) <= depth < len(blocks)]
    if wrong:
        raise ConfigError(f"There is no block {wrong[0]}; this trunk has {len(blocks)}, from 0 to {len(blocks) - 1}.")
    found: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for depth in depths:
            stack.enter_context(_hook(backbone, blocks[depth], depth, depth % len(blocks), found))
        yield found


@contextlib.contextmanager
def _hook(backbone: BlockBackbone, block: nn.Module, depth: int, number: int, found: dict[int, Tensor]) -> Iterator[None]:
    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output  # some libraries give attention maps beside
        # Under the number as given, which may be negative.
        found[depth] = backbone.read_states(number, states)

    handle = block.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()

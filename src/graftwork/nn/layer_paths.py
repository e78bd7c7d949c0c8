"""Which modules of a network are its layers: paths in the order in which one forward pass runs them, for methods that compare two
networks layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.nn.module_taps import tapped_modules

__all__ = ["feature_layers", "placed_layers"]

_FEATURES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Linear,
    nn.LayerNorm,
    nn.AdaptiveAvgPool2d,
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def feature_layers(network: nn.Module, run: Callable[[], Any], num_rows: int) -> dict[str, tuple[int, ...]]:
    """Return the layers with features: convolutions, linear layers, norms of layers, poolings, recurrent and attention layers.

    Args:
        network: The network.
        run: Runs it once on some rows, or a part of it: what does not run does not count.
        num_rows: How many rows that were; layers that give something else than one answer a row are left out.

    Returns:
        ``{path: shape of the output}`` in the order of the forward pass.
    """
    paths = [path for path, module in network.named_modules() if path and isinstance(module, _FEATURES)]
    return _shapes(network, paths, run, num_rows)


def placed_layers(network: nn.Module, run: Callable[[], Any], num_rows: int) -> dict[str, tuple[int, ...]]:
    """Return the stages or blocks whose outputs have places: maps ``[B, C, h, w]`` or tokens ``[B, N, C]``.

    These are the members of the lists of modules that the network keeps (``stages``, ``blocks``); where fewer than two of them have
    places, all modules count.

    Args:
        network: See :func:`feature_layers`, as the other arguments.
        run: Likewise.
        num_rows: Likewise.

    Returns:
        ``{path: shape of the output}`` in the order of the forward pass.
    """
    known = {path: module for path, module in network.named_modules() if path}
    listed = [
        path
        for path in known
        if isinstance(known.get(path.rpartition(".")[0]), nn.ModuleList) and not _inside_of_a_list(path, known)
    ]
    placed = _placed(_shapes(network, listed, run, num_rows))
    return placed if len(placed) >= 2 else _placed(_shapes(network, list(known), run, num_rows))


def _placed(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {path: shape for path, shape in shapes.items() if len(shape) in (3, 4)}


def _inside_of_a_list(path: str, known: dict[str, nn.Module]) -> bool:
    """Return whether a member of a list lies inside a member of another one: a part of a block is no block."""
    parents = path.split(".")[:-2]
    return any(isinstance(known.get(".".join(parents[:end])), nn.ModuleList) for end in range(1, len(parents) + 1))


def _shapes(network: nn.Module, paths: list[str], run: Callable[[], Any], num_rows: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    with torch.no_grad(), tapped_modules(network, paths) as states:
        run()
    for path, output in states.items():
        if isinstance(output, Tensor) and output.ndim >= 2 and output.shape[0] == num_rows:
            found[path] = tuple(output.shape)
    return found

"""The places of the largest numbers over several tensors together, or of numbers drawn at random."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError

__all__ = ["largest_places", "random_places"]


def largest_places(
    tensors: Mapping[str, Tensor], count: int, *, besides: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return where the ``count`` numbers of largest magnitude are, over all tensors together.

    Args:
        tensors: Tensors by name, of any shapes; NaN counts as the largest.
        count: How many, at least 0.
        besides: Places by name that do not take part, int64.

    Returns:
        Increasing places in each flat tensor, int64, for the tensors that have some. Exactly ``count`` in all: among equal
        magnitudes the first ones are taken.

    Raises:
        ConfigError: If there are not so many numbers.

    Example:
        >>> found = largest_places({"a": torch.tensor([1.0, -5.0]), "b": torch.tensor([[3.0], [4.0]])}, 2)
        >>> {name: places.tolist() for name, places in found.items()}
        {'a': [1], 'b': [1]}
    """
    keys = {name: tensor.detach().abs().flatten().float() for name, tensor in tensors.items()}
    return _first(keys, count, besides or {})


def random_places(
    sizes: Mapping[str, int],
    count: int,
    generator: torch.Generator | None = None,
    *,
    besides: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Draw different places, all equally likely over all tensors together; see :func:`largest_places`.

    Args:
        sizes: How many numbers each tensor has.
        count: How many places are drawn.
        generator: Draws; None takes torch's global generator.
        besides: Places by name that do not take part.
    """
    return _first({name: torch.rand(size, generator=generator) for name, size in sizes.items()}, count, besides or {})


def _first(keys: Mapping[str, Tensor], count: int, besides: Mapping[str, Tensor]) -> dict[str, Tensor]:
    free = {name: torch.ones(len(key), dtype=torch.bool, device=key.device) for name, key in keys.items()}
    for name in besides.keys() & keys.keys():
        free[name][besides[name]] = False
    available = sum(int(mask.sum()) for mask in free.values())
    if not 0 <= count <= available:
        raise ConfigError(f"{count} places were asked for, and there are {available} to choose from. Choose fewer.")
    if not count:
        return {}
    # -1 is below every magnitude. A stable sort, so that ties and devices do not decide what is taken.
    joined = torch.cat([key.masked_fill(~free[name], -1.0) for name, key in keys.items()])
    taken = torch.zeros(len(joined), dtype=torch.bool, device=joined.device)
    taken[torch.sort(joined, descending=True, stable=True).indices[:count]] = True
    found = dict(zip(keys, taken.split([len(key) for key in keys.values()]), strict=True))
    return {name: mask.nonzero().flatten() for name, mask in found.items() if bool(mask.any())}

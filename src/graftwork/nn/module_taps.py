"""Taps by module path: what named modules of any network give in one forward pass, read by hooks that are gone afterwards."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = ["find_module", "tapped_modules"]

_SHOWN = 12
"""Paths that a message lists."""
_NEAREST = 4
"""Of these, the nearest ones that come first."""


def find_module(network: nn.Module, path: str) -> nn.Module:
    """Return the module of a dotted path as ``named_modules`` writes it; an empty path is the network itself.

    Raises:
        ConfigError: If there is none; the message lists paths, the nearest first.

    Example:
        >>> type(find_module(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")).__name__
        'ReLU'
    """
    known = dict(network.named_modules())
    if path not in known:
        names = [name for name in known if name]
        # The nearest ones, then the upper levels, which tell most; all paths of a transformer would fill the screen.
        near = difflib.get_close_matches(path, names, n=_NEAREST)
        shown = list(dict.fromkeys([*near, *sorted(names, key=lambda name: name.count("."))]))[:_SHOWN]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise ConfigError(
            f"{type(network).__name__} has no module {path!r}.{did_you_mean(path, names)} Its modules: {', '.join(shown)}{more}."
        )
    return known[path]


@contextlib.contextmanager
def tapped_modules(network: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what modules give in the forward passes of a ``with`` block, as part of their graph.

    Args:
        network: Any network; it computes what it always does, and has no hooks of this call afterwards, also after an error.
        paths: Paths of modules; see :func:`find_module`.

    Yields:
        ``{path: output}``, filled by each forward pass; of a module that runs several times the last output counts. Of outputs
        that hold several tensors the first one is taken.

    Raises:
        ConfigError: If there is no such module, or its output holds no tensor.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tapped_modules(network, ["0"]) as found:
        ...     _ = network(torch.zeros(4, 2))
        >>> tuple(found["0"].shape), len(network[0]._forward_hooks)
        ((4, 3), 0)
    """
    found: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(paths):
            module = find_module(network, path)

            def keep(module: nn.Module, arguments: Any, output: Any, path: str = path) -> None:
                found[path] = _first_tensor(output, path)

            stack.callback(module.register_forward_hook(keep).remove)
        yield found


def _first_tensor(output: Any, path: str) -> Tensor:
    if isinstance(output, Tensor):
        return output
    # Outputs of transformers are mappings; attention layers give their maps beside the states.
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise ConfigError(f"The module {path!r} gives {type(output).__name__}, which holds no tensor. Tap another one.")

"""A frozen layer plus differences of its weights that learn: all of them, or those at some places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graftwork.core.errors import ConfigError
from graftwork.nn.delta_parts import Dense, Sparse
from graftwork.nn.foldable import FoldableLayer

__all__ = ["ChangedWeights"]


class ChangedWeights(FoldableLayer):
    """``base`` computed with ``weight + start + change`` in place of ``weight``, and likewise with its other parameters.

    Changes at chosen places are parameters of their own, so that nothing can move what was not chosen: neither weight decay nor
    momentum nor a moment of Adam, as they could under a mask on gradients. Weights that were not chosen keep their bits.

    Args:
        base: A layer that holds its parameters itself (Linear, Embedding, a convolution); they stop requiring gradients.
        places: Of each parameter of ``base`` that changes, by name: increasing places in the flat tensor that learn, int64; None
            lets all learn. What is not named stays.
        start: Differences that are added for good, by the parameter's name, in its shape.
        begin: What changes begin with, in place of zeros, by the parameter's name, in its shape.

    Raises:
        ConfigError: If a place is outside of its parameter.
    """

    def __init__(
        self,
        base: nn.Module,
        places: Mapping[str, Tensor | None],
        *,
        start: Mapping[str, Tensor] | None = None,
        begin: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        own = dict(base.named_parameters(recurse=False))
        self.names = tuple(places)
        """The parameters that change, by their names in ``base``."""
        self.started = tuple(start or {})
        for name, added in (start or {}).items():
            # The sum, not the difference: it is read in every step. It follows from base and start, so files need not hold it.
            self.register_buffer(f"{name}_origin", own[name].detach() + added.to(own[name]), persistent=False)
        self.changes = nn.ParameterDict()
        for name, where in places.items():
            values = (begin or {}).get(name, torch.zeros_like(own[name])).detach().to(own[name])
            if where is not None:
                if len(where) and not 0 <= int(where.min()) <= int(where.max()) < own[name].numel():
                    raise ConfigError(f"Places of {name!r} must be from 0 to {own[name].numel() - 1}; got {int(where.max())}.")
                values = values.flatten()[where]
            self.register_buffer(f"{name}_places", where)
            self.changes[name] = nn.Parameter(values.clone())

    def origin(self, name: str) -> Tensor:
        """Return a parameter as it is without what is learned: that of ``base``, plus the start."""
        found: Tensor = getattr(self, f"{name}_origin") if name in self.started else getattr(self.base, name)
        return found

    def current(self, name: str) -> Tensor:
        """Return a parameter as the layer computes with it, with a graph to what is learned."""
        origin = self.origin(name)
        if name not in self.names:
            return origin
        where, values = getattr(self, f"{name}_places"), self.changes[name]
        if where is None:
            return origin + values
        return origin.flatten().index_add(0, where, values).view(origin.shape)

    @property
    def weight(self) -> Tensor:
        """The whole weight; what reads a layer's weight without calling it gets this one."""
        return self.current("weight")

    @property
    def bias(self) -> Tensor | None:
        """The whole bias."""
        own: Any = getattr(self.base, "bias", None)
        return own if own is None else self.current("bias")

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the base layer computes with the changed parameters."""
        # Through the base layer's own forward: stride, padding and subclasses stay what they are.
        changed = {name: self.current(name) for name in dict.fromkeys((*self.names, *self.started))}
        return functional_call(self.base, changed, arguments, keywords)

    def learned(self, name: str) -> Dense | Sparse:
        """Return what was learned of one parameter: the difference from its origin, as copies."""
        where, values = getattr(self, f"{name}_places"), self.changes[name].detach().clone()
        return Dense(values) if where is None else Sparse(where.clone(), values)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with start and changes in its parameters, in place."""
        for name in dict.fromkeys((*self.names, *self.started)):
            getattr(self.base, name).data = self.current(name).detach().clone()
        return self.base

"""Several deltas of one model: loaded once, enabled alone or together with weights, switched without touching the others.

The base is fingerprinted once, when the first delta that names one is added. Enabling and disabling touch the tensors that the
deltas concerned change, so that they take the same time however many deltas are loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.interfaces.delta import Delta
from graftwork.nn.delta_base import check_base, check_shapes, once_each
from graftwork.nn.foldable import plain_state
from graftwork.nn.module_delta import ModuleDelta
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["DeltaSet"]


class DeltaSet:
    """A model and named deltas, some of which are enabled.

    Args:
        model: The base, in which nothing is attached yet.
        check: Whether deltas of another base are refused.

    Example:
        >>> from graftwork.nn.weight_delta import Dense
        >>> model = nn.Linear(2, 1, bias=False)
        >>> deltas = DeltaSet(model)
        >>> for name, value in (("a", 1.0), ("b", 10.0)):
        ...     deltas.add(name, WeightDelta({"weight": Dense(torch.full((1, 2), value))}, {"weight": torch.Size([1, 2])}))
        >>> _ = model.weight.data.zero_()
        >>> deltas.enable({"a": 1.0, "b": 0.5})
        >>> model.weight.tolist()
        [[6.0, 6.0]]
    """

    def __init__(self, model: nn.Module, *, check: bool = True) -> None:
        self.model, self.check = model, check
        self._state = plain_state(model)
        self._fingerprint = ""
        self._deltas: dict[str, Delta] = {}
        self._tensors: dict[str, list[str]] = {}
        self._enabled: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self._attached: list[Delta] = []

    def __len__(self) -> int:
        return len(self._deltas)

    def __contains__(self, name: object) -> bool:
        return name in self._deltas

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all deltas, in the order in which they were added."""
        return tuple(self._deltas)

    @property
    def enabled(self) -> Mapping[str, float]:
        """Which deltas the model computes with at present, and their weights."""
        return dict(self._enabled)

    def __getitem__(self, name: str) -> Delta:
        return self._deltas[self._known(name)]

    def add(self, name: str, delta: Delta) -> None:
        """Take a delta in, disabled.

        Raises:
            ConfigError: If the name is taken, or the delta belongs to another base.
        """
        if name in self._deltas:
            raise ConfigError(f"There is a delta called {name!r} already. Remove it first, or take another name.")
        if self._enabled and not self._fingerprint and self.check and delta.base_fingerprint:
            raise ConfigError("The base cannot be recognised while deltas are enabled. Call disable() first, then add.")
        weights = delta.weights if isinstance(delta, ModuleDelta) else delta
        if not isinstance(weights, WeightDelta):
            raise ConfigError(f"A DeltaSet takes differences of weights and modules; {name!r} is a {type(delta).__name__}.")
        if not self.check or not delta.base_fingerprint or delta.base_fingerprint != self._fingerprint:
            check_base(delta, self._state, weights.shapes, check=self.check)
            # What passed the check has the base's fingerprint; later deltas are compared with that.
            self._fingerprint = self._fingerprint or (delta.base_fingerprint if self.check else "")
        else:
            check_shapes(self._state, weights.shapes)
        self._tensors[name] = once_each(weights, self._state)
        self._deltas[name] = delta

    def remove(self, name: str) -> Delta:
        """Take a delta out, disabling it if need be, and return it.

        Raises:
            ConfigError: If there is no such delta.
        """
        self._known(name)
        if name in self._enabled:
            self.enable({other: weight for other, weight in self._enabled.items() if other != name})
        del self._tensors[name]
        return self._deltas.pop(name)

    @torch.no_grad()
    def enable(self, *which: str | Mapping[str, float]) -> None:
        """Let the model compute with these deltas and no others: ``base + sum_i weight_i * delta_i``.

        Args:
            which: Names, weighted by 1, or one mapping from names to weights. Modules stand around each other in this order.

        Raises:
            ConfigError: If a name is unknown, or a delta cannot be scaled by its weight; the model is as before then.
        """
        wanted: dict[str, float] = {}
        for item in which:
            wanted |= {item: 1.0} if isinstance(item, str) else {name: float(weight) for name, weight in item.items()}
        modules = [
            delta if weight == 1.0 else delta.scale(weight)
            for name, weight in wanted.items()
            if isinstance(delta := self._deltas[self._known(name)], ModuleDelta)
        ]
        self.disable()
        for name, weight in wanted.items():
            delta = self._deltas[name]
            weights = delta.weights if isinstance(delta, ModuleDelta) else delta
            for key in self._tensors[name]:
                self._add(key, weights, weight)
        for module in modules:
            # Their weights are in the model already.
            only = ModuleDelta(module.grafts)
            only.attach(self.model, check=False)
            self._attached.append(only)
        self._enabled = wanted

    @torch.no_grad()
    def disable(self) -> None:
        """Give the base back, bit for bit."""
        for delta in reversed(self._attached):
            delta.detach()
        for name, before in self._before.items():
            self._state[name].data = before
        self._attached, self._before, self._enabled = [], {}, {}

    def fold(self) -> None:
        """Make what is enabled the base for good; the other deltas are dropped, since they belong to the old one.

        Raises:
            ConfigError: If a delta that puts modules into the model is enabled.
        """
        if self._attached:
            raise ConfigError("Modules cannot be written into weights. Disable the deltas that have some, then fold.")
        self._deltas, self._tensors, self._before, self._enabled, self._fingerprint = {}, {}, {}, {}, ""

    @contextlib.contextmanager
    def using(self, *which: str | Mapping[str, float]) -> Iterator[nn.Module]:
        """Enable deltas for the time of a ``with`` block, and then what was enabled before."""
        before = self.enabled
        self.enable(*which)
        try:
            yield self.model
        finally:
            self.enable(before)

    def _add(self, name: str, delta: Delta, weight: float) -> None:
        assert isinstance(delta, WeightDelta)
        parameter = self._state[name]
        # Kept, not subtracted again: rounding would leave other bits.
        base = self._before.setdefault(name, parameter.data)
        # Of the base, not of what other deltas made of it: weight-decomposed differences depend on it.
        change = delta.change(name, base).to(parameter)
        parameter.data = parameter.data + (change if weight == 1.0 else weight * change)

    def _known(self, name: str) -> str:
        if name not in self._deltas:
            raise ConfigError(
                f"There is no delta {name!r}.{did_you_mean(name, self._deltas)} Loaded: {', '.join(self._deltas) or 'none'}."
            )
        return name

"""ScaLearn: scales on the outputs of several tasks' frozen adapters learn, and nothing else.

Paper: Frohmann et al., "ScaLearn: Simple and Highly Parameter-Efficient Task Transfer by Learning to Scale", Findings of ACL 2024,
https://arxiv.org/abs/2310.01217 (code: CPJKU/ScaLearn).

===================  ===========  ================  ====================================
variant              ``uniform``  ``share_layers``  numbers for ``L`` places, ``T`` tasks
===================  ===========  ================  ====================================
ScaLearn             false        false             ``L * T * width``
ScaLearnUniform      true         false             ``L * T``
ScaLearn++           false        true              ``T * width``
ScaLearnUniform++    true         true              ``T``
===================  ===========  ================  ====================================

Symbols: ``omega`` = :attr:`.ScaledAdapters.scale`, drawn from ``Normal(start, 0.001)`` with ``start = 2 / T``.

Departures: adapters have GELU and stand behind blocks (see :class:`~graftwork.methods.tuning.adapter.Adapters`). Scales are folded:
the delta holds one adapter a place, ``T`` times as wide, whose ``up`` has the scales in it, so it works without the sources' files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.banked import BankedTuning
from graftwork.nn.adapter_bank import AdapterBank, ScaledAdapters
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.foldable import plain_state
from graftwork.nn.grafts import Graft
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft

__all__ = ["ScaLearn"]

_DEVIATION = 0.001
_WIDE = f"{BottleneckAdapter.__module__}:{BottleneckAdapter.__name__}"


class ScaLearn(BankedTuning):
    """Scales learn; the adapters and everything else are frozen.

    Args:
        deltas: See :class:`.BankedTuning`; the adapters of the task itself belong to them.
        uniform: One scale for each adapter in place of one for each adapter and channel.
        share_layers: The same scales in all places.
        start: Mean of the scales in the beginning; None takes ``2 / T``.
        dropout: Probability of dropping a scale in training, in ``[0, 1)``; None takes the paper's 0.3 for the variant that shares
            nothing and 0 for the others.

    Raises:
        ConfigError: If the dropout is out of range, and see :class:`.BankedTuning`; on :meth:`attach`, if places of several widths
            shall share scales for each channel.
    """

    def __init__(
        self,
        *,
        deltas: str | Path | Sequence[str | Path | Delta] = (),
        uniform: bool = False,
        share_layers: bool = False,
        start: float | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(deltas)
        self.uniform, self.share_layers = uniform, share_layers
        self.start = start
        self.dropout = (0.0 if uniform or share_layers else 0.3) if dropout is None else dropout
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"`dropout` must be in [0, 1); got {dropout!r}.")

    def make_bank(self, base: nn.Module, settings: Mapping[str, Any]) -> AdapterBank:
        """Return a bank with scales."""
        return ScaledAdapters(base, **settings, uniform=self.uniform, dropout=self.dropout)

    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return a bank for each place, with scales as they begin."""
        found = super().make(model)
        banks = [bank for bank in found.values() if isinstance(bank, ScaledAdapters)]
        widths = sorted({bank.width for bank in banks})
        if self.share_layers and not self.uniform and len(widths) > 1:
            raise ConfigError(
                f"Scales for each channel cannot be shared by places of several widths ({', '.join(map(str, widths))}). Take "
                "uniform=True, or share_layers=False."
            )
        start = 2.0 / len(self.deltas) if self.start is None else self.start
        for bank in banks:
            nn.init.normal_(bank.scale, start, _DEVIATION)
            if self.share_layers:
                # One parameter in all of them.
                bank.scale = banks[0].scale
        return found

    def delta(self, model: nn.Module | None = None) -> ModuleDelta:
        """Return one adapter a place, as wide as all of them together, with the scales in it; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError("This ScaLearn is attached to no model yet; call attach(model) first.")
        source = self._model if model is None else model
        placed = []
        for place in self.grafts:
            bank = source.get_submodule(place)
            assert isinstance(bank, ScaledAdapters), "a copy of the attached model has its banks"
            placed.append(PlacedGraft(place, Component(_WIDE, bank.wide_settings()), bank.wide_tensors()))
        base = plain_state(source)
        return ModuleDelta(
            placed,
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage={
                "tuner": "ScaLearn",
                "uniform": self.uniform,
                "share_layers": self.share_layers,
                "sources": [str(item) if isinstance(item, str | Path) else dict(item.lineage) for item in self.deltas],
            },
        )

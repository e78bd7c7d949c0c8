"""AdapterFusion: an attention over the frozen adapters of several tasks learns, in every place that has some.

Paper: Pfeiffer et al., "AdapterFusion: Non-Destructive Task Composition for Transfer Learning", EACL 2021,
https://arxiv.org/abs/2005.00247.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from graftwork.interfaces.delta import Delta
from graftwork.methods.tuning.banked import BankedTuning
from graftwork.nn.adapter_bank import AdapterBank, AdapterFusion

__all__ = ["FusedAdapters"]


class FusedAdapters(BankedTuning):
    """Query, key and value maps of each place learn; the adapters and everything else are frozen.

    Args:
        deltas: See :class:`.BankedTuning`.

    Raises:
        ConfigError: See :class:`.BankedTuning`.
    """

    def __init__(self, *, deltas: str | Path | Sequence[str | Path | Delta] = ()) -> None:
        super().__init__(deltas)

    def make_bank(self, base: nn.Module, settings: Mapping[str, Any]) -> AdapterBank:
        """Return a bank with an attention."""
        return AdapterFusion(base, **settings)

"""What tuners share that combine adapters of several tasks: reading their deltas, and putting a bank behind every place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.methods.tuning.grafted import GraftedTuning
from graftwork.nn.adapter_bank import AdapterBank
from graftwork.nn.delta_base import check_base
from graftwork.nn.foldable import plain_module, plain_state
from graftwork.nn.grafts import Graft
from graftwork.nn.module_delta import ModuleDelta, load_delta

__all__ = ["BankedTuning"]

_ADAPTER = "graftwork.nn.adapters:BottleneckAdapter"


class BankedTuning(GraftedTuning):
    """Puts the frozen adapters of several deltas into a frozen model and learns how they are combined.

    Args:
        deltas: Deltas of :class:`~graftwork.methods.tuning.adapter.Adapters` of one base and the same places, or their files; as one
            text, files are separated by commas.

    Raises:
        ConfigError: On :meth:`attach`, if there are no deltas, a file is no delta of adapters alone, or deltas have other places or
            belong to another base.
    """

    def __init__(self, deltas: str | Path | Sequence[str | Path | Delta]) -> None:
        super().__init__()
        given = [deltas] if isinstance(deltas, Path) else deltas.split(",") if isinstance(deltas, str) else list(deltas)
        self.deltas = [item.strip() if isinstance(item, str) else item for item in given]

    @abstractmethod
    def make_bank(self, base: nn.Module, settings: Mapping[str, Any]) -> AdapterBank:
        """Return an empty bank of the keywords of :class:`.AdapterBank` around ``base``."""

    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return a bank for each place of the adapters."""
        if not self.deltas:
            raise ConfigError(
                f"{type(self).__name__} combines adapters of several tasks: name their files in `deltas`, that of the task itself "
                "among them (graftwork tune --method adapter writes them)."
            )
        sources = [self._read(item, model) for item in self.deltas]
        places = list(sources[0])
        for item, source in zip(self.deltas, sources, strict=True):
            if list(source) != places:
                odd = sorted(set(source) ^ set(places)) or places
                raise ConfigError(
                    f"{_named(item)} has adapters at other places than {_named(self.deltas[0])}, {odd[0]!r} for one. Tune all of them "
                    "with the same settings."
                )
        found: dict[str, Graft] = {}
        for place in places:
            grafts = [source[place] for source in sources]
            first = grafts[0].component.settings
            size = max(int(graft.component.settings["bottleneck"]) for graft in grafts)
            settings = {"width": first["width"], "channels": first["channels"], "bottleneck": size, "count": len(grafts)}
            bank = self.make_bank(model.get_submodule(plain_module(model, place)), settings)
            bank.load_adapters([graft.tensors for graft in grafts])
            found[place] = bank
        return found

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield what combines the adapters, once each: places may share it."""
        seen: set[int] = set()
        for parameter in super().trainable():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter

    def _read(self, item: str | Path | Delta, model: nn.Module) -> dict[str, Any]:
        delta = load_delta(item) if isinstance(item, str | Path) else item
        kinds = [graft.component.path for graft in delta.grafts] if isinstance(delta, ModuleDelta) else []
        if not isinstance(delta, ModuleDelta) or not kinds or set(kinds) != {_ADAPTER} or delta.weights.parts:
            what = sorted({path.rpartition(":")[2] for path in kinds if path != _ADAPTER})
            if isinstance(delta, ModuleDelta) and delta.weights.parts:
                what.append(f"a difference of the weight {next(iter(delta.weights.parts))!r}")
            held = ", ".join(what) or f"a {type(delta).__name__}"
            raise ConfigError(
                f"{type(self).__name__} combines bottleneck adapters, and {_named(item)} holds {held}. Give deltas of `tune --method "
                "adapter`."
            )
        check_base(delta, plain_state(model), {}, check=True)
        return {graft.place: graft for graft in delta.grafts}


def _named(item: str | Path | Delta) -> str:
    return f"{item}" if isinstance(item, str | Path) else f"a delta ({item.lineage.get('tuner', 'of unknown origin')})"

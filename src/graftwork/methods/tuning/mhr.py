"""Multi-head adapter routing: an inventory of low-rank modules, and which task mixes which of them for which slice of the weights.

Paper: Caccia et al., "Multi-Head Adapter Routing for Cross-Task Generalization", NeurIPS 2023, https://arxiv.org/abs/2211.03831
(code: microsoft/mttl). ``heads = 1`` is Polytropon (Poly).

:class:`~graftwork.methods.tuning.mhr_tasks.MultiHeadRouting` learns the inventory on several tasks; :class:`MHR` tunes a backbone for a new task from it:

=========================  =====================================================  ====================
``learns``                 what learns                                            paper
=========================  =====================================================  ====================
``"all"``                  routing, beginning near uniform, and all modules       MHR, Poly
``"routing"``              routing alone                                          MHR-z, Poly-z
``"mean"``                 one module, which begins as the mean of all            MHR-mu, Poly-mu
=========================  =====================================================  ====================

Symbols: ``S`` = ``skills``, ``K`` = ``heads``, ``Z`` = ``routing``, ``alpha`` = :func:`.normalised_routing`.

Departures: routing and modules learn at one rate; no Gumbel noise on the gates, as in mttl's configurations of MHR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.layer_tuner import LayerTuner
from graftwork.methods.tuning.lora import select_layers
from graftwork.nn.delta_base import check_base
from graftwork.nn.foldable import plain_state, put_module
from graftwork.nn.module_delta import load_delta
from graftwork.nn.routed_low_rank import FoldableRouted
from graftwork.nn.weight_delta import LowRank, WeightDelta

__all__ = ["MHR", "Learns", "check_numbers", "routed_delta"]

Learns = Literal["all", "routing", "mean"]


def check_numbers(skills: int, r: int, heads: int, lora_alpha: float) -> None:
    """Refuse numbers out of range.

    Raises:
        ConfigError: Naming them.
    """
    if min(skills, r, heads) < 1:
        raise ConfigError(f"`skills`, `r` and `heads` must be at least 1; got {skills}, {r}, {heads}.")
    if not math.isfinite(lora_alpha):
        raise ConfigError(f"`lora_alpha` must be finite; got {lora_alpha!r}.")


def routed_delta(model: nn.Module, parts: Mapping[str, LowRank], lineage: Mapping[str, Any]) -> WeightDelta:
    """Return low-rank differences of an attached model's layers, with the facts about its base."""
    base = plain_state(model)
    return WeightDelta(
        parts,
        {name: base[name].shape for name in parts},
        base_fingerprint=state_fingerprint(base),
        base_prints=tensor_prints(base),
        lineage=lineage,
    )


class MHR(LayerTuner[FoldableRouted]):
    """Tunes for one task from an inventory of low-rank modules of the same layers.

    Args:
        inventory: Low-rank deltas of one base, one a module, or their files: those of :meth:`.MultiHeadRouting.skill_deltas`, or of
            ``tune --method lora`` on several tasks; as one text, files are separated by commas. Empty begins with new modules.
        learns: What learns; see this module's docstring. ``"routing"`` and ``"mean"`` need an inventory.
        heads: Slices of the weights that are routed apart; 1 is Poly.
        skills: Modules, where there is no inventory; likewise the next three.
        r: Rank of new modules.
        lora_alpha: Numerator of the scaling ``lora_alpha / r`` of new modules.
        target_modules: Layers of new modules; see :func:`~graftwork.methods.tuning.lora.select_layers`.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if the inventory is missing, has other kinds of differences or
            other layers or ranks, or belongs to another base, or if a layer cannot be cut into so many slices.
    """

    def __init__(
        self,
        *,
        inventory: str | Path | Sequence[str | Path | Delta] = (),
        learns: Learns = "all",
        heads: int = 4,
        skills: int = 4,
        r: int = 4,
        lora_alpha: float = 16.0,
        target_modules: str | Sequence[str] = "auto",
    ) -> None:
        super().__init__()
        if learns not in get_args(Learns):
            raise ConfigError(f"`learns` must be one of {', '.join(get_args(Learns))}; got {learns!r}.")
        check_numbers(skills, r, heads, lora_alpha)
        given = [inventory] if isinstance(inventory, Path) else inventory.split(",") if isinstance(inventory, str) else inventory
        self.inventory = [item.strip() if isinstance(item, str) else item for item in given]
        self.learns: Learns = learns
        self.heads, self.skills, self.r, self.lora_alpha = heads, skills, r, lora_alpha
        self.target_modules = target_modules if isinstance(target_modules, str) else tuple(target_modules)

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put routed layers into the places of its layers, in place.

        With an inventory it computes with the mixture of all modules from then on; without one it computes what it did before.
        """
        parts = self._read(model)
        made = self._new_layers(model) if parts is None else self._layers_of(model, parts)
        self._freeze(model)
        for name, layer in made.items():
            layer.down.requires_grad_(self.learns != "routing")
            layer.up.requires_grad_(self.learns != "routing")
            layer.routing.requires_grad_(self.learns != "mean")
            put_module(model, name, layer)
        self._model, self.layers = model, made

    def _new_layers(self, model: nn.Module) -> dict[str, FoldableRouted]:
        if self.learns != "all":
            raise ConfigError(
                f"learns={self.learns!r} tunes from modules that other tasks have learned: name their files in `inventory`. "
                'learns="all" can begin with new ones.'
            )
        names = select_layers(model, self.target_modules)
        settings: dict[str, Any] = {"skills": self.skills, "rank": self.r, "heads": self.heads}
        return {name: FoldableRouted(model.get_submodule(name), **settings, scaling=self.lora_alpha / self.r) for name in names}

    def _layers_of(self, model: nn.Module, skills: Sequence[dict[str, LowRank]]) -> dict[str, FoldableRouted]:
        made: dict[str, FoldableRouted] = {}
        is_mean = self.learns == "mean"
        for tensor, first in skills[0].items():
            name = tensor.removesuffix(".weight")
            layer = FoldableRouted(
                model.get_submodule(name),
                skills=1 if is_mean else len(skills),
                rank=len(first.down),
                # One module is the same for every number of slices.
                heads=1 if is_mean else self.heads,
                scaling=first.factor,
            )
            own = [skill[tensor] for skill in skills]
            layer.load_skills([_mean(own)] if is_mean else own)
            made[name] = layer
        return made

    def _read(self, model: nn.Module) -> list[dict[str, LowRank]] | None:
        """Return the parts of each module by tensor; None if there is no inventory."""
        if not self.inventory:
            return None
        found: list[dict[str, LowRank]] = []
        for item in self.inventory:
            delta = load_delta(item) if isinstance(item, str | Path) else item
            title = str(item) if isinstance(item, str | Path) else f"a delta ({item.lineage.get('tuner', 'of unknown origin')})"
            parts = dict(delta.parts) if isinstance(delta, WeightDelta) else {}
            low_rank = {
                name: part
                for name, part in parts.items()
                if isinstance(part, LowRank) and name.endswith(".weight") and part.down.shape[1:] == delta.shapes[name][1:]  # type: ignore[attr-defined]
            }
            if not parts or len(low_rank) < len(parts):
                odd = next((f"{name!r}, a {type(part).__name__}" for name, part in parts.items() if name not in low_rank), "")
                what = f"changes {odd}" if odd else f"is a {type(delta).__name__} without differences of weights"
                raise ConfigError(
                    f"MHR mixes low-rank differences of layers (LoRA), and {title} {what}. Tune with --method lora."
                )
            assert isinstance(delta, WeightDelta)
            check_base(delta, plain_state(model), delta.shapes, check=True)
            ranks = {name: len(part.down) for name, part in low_rank.items()}
            wanted = {name: len(part.down) for name, part in found[0].items()} if found else ranks
            if ranks != wanted:
                other = sorted(name for name in ranks.keys() | wanted.keys() if ranks.get(name) != wanted.get(name))[0]
                raise ConfigError(
                    f"Modules of one inventory have the same layers and ranks; {title} has rank {ranks.get(other, 0)} at {other!r} "
                    f"where the first has {wanted.get(other, 0)}."
                )
            found.append(low_rank)
        return found

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield what learns of modules and routing, layer by layer."""
        for layer in self.layers.values():
            yield from (item for item in (layer.down, layer.up, layer.routing) if item.requires_grad)

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the mixture as a low-rank difference; see :class:`.Tuner`."""
        attached = self._unfolded()
        source = attached if model is None else model
        modules, parts = dict(source.named_modules()), dict[str, LowRank]()
        for name in self.layers:
            layer = modules.get(name)
            if not isinstance(layer, FoldableRouted):
                raise ConfigError(
                    f"The model given is no copy of the one that this MHR is attached to: it has no routed layer {name!r}. Give a "
                    "copy, or none."
                )
            parts[f"{name}.weight"] = layer.part()
        return routed_delta(source, parts, {"tuner": "MHR", "learns": self.learns, "heads": self.heads})


def _mean(parts: Sequence[LowRank]) -> LowRank:
    """Return the module whose ``A`` is the mean of all ``A``, and ``B`` of all ``B``."""
    factor = parts[0].factor
    down = sum(part.down.flatten(1) for part in parts) / len(parts)
    up = sum(part.up.flatten(1) * (part.factor / factor) for part in parts) / len(parts)
    assert isinstance(down, Tensor)
    assert isinstance(up, Tensor)
    return LowRank(down, up, factor)

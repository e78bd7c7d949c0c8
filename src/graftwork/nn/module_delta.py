"""Deltas that are modules: adapters, prompts and side networks put into a base, and differences of weights beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.nn.delta_base import check_base, check_same_base
from graftwork.nn.delta_file import DeltaFile, read_delta_file, write_delta_file
from graftwork.nn.foldable import WrappingLayer, plain_module, plain_state, put_module
from graftwork.nn.grafts import Graft, load_own_tensors
from graftwork.nn.side import SideNetwork, add_side, remove_side
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["ModuleDelta", "PlacedGraft", "load_delta"]


@dataclass(frozen=True, slots=True)
class PlacedGraft:
    """A module, and where it is put."""

    place: str
    """Plain name of the module that it is put around; empty for a side network of the whole model."""
    component: Component
    """Its class (:class:`.Graft` or :class:`.SideNetwork`) and settings."""
    tensors: Mapping[str, Tensor]
    """Its own parameters and buffers."""

    def build(self, model: nn.Module) -> nn.Module:
        """Return the module around what stands at its place in ``model`` now; nothing is changed yet."""
        if not self.place:
            side: nn.Module = self.component.build(model, seam=SideNetwork)
        else:
            side = self.component.build(model.get_submodule(plain_module(model, self.place)), seam=Graft)
        like = next(model.parameters(), torch.zeros(0))
        for name, tensor in list(side.named_parameters()) + list(side.named_buffers()):
            if not name.startswith("base."):
                tensor.data = tensor.data.to(device=like.device)
        load_own_tensors(side, self.tensors, self.place)
        return side.train(model.training)


class ModuleDelta(Delta):
    """Modules to put into a base, the innermost first, and a difference of weights.

    Args:
        grafts: The modules.
        weights: What changes in the base's own weights besides (norms that learned with the adapters, say); None for nothing.
        base_fingerprint: The base that it belongs to; empty takes that of ``weights``.
        base_prints: See :class:`.Delta`.
        lineage: What it was made by, from what; JSON values.
    """

    def __init__(
        self,
        grafts: Sequence[PlacedGraft],
        weights: WeightDelta | None = None,
        *,
        base_fingerprint: str = "",
        base_prints: Mapping[str, str] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> None:
        self.grafts = tuple(grafts)
        self.weights = weights or WeightDelta({}, {})
        self.base_fingerprint = base_fingerprint or self.weights.base_fingerprint
        self.base_prints = dict(base_prints or self.weights.base_prints)
        self.lineage = dict(self.weights.lineage if lineage is None else lineage)
        self._model: nn.Module | None = None
        self._built: list[nn.Module] = []

    def names(self) -> Iterator[str]:
        """Yield nothing: what it does is no difference of weights."""
        return iter(())

    def tensor(self, name: str) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"This delta puts modules into the model; it has no difference of the weight {name!r} to give.")

    def count(self) -> int:
        """Return how many numbers are stored."""
        return self.weights.count() + sum(tensor.numel() for graft in self.grafts for tensor in graft.tensors.values())

    def scale(self, factor: float) -> ModuleDelta:
        """Return the delta whose modules add ``factor`` times as much.

        Raises:
            ConfigError: If one of them is a prompt or a side network.
        """
        scaled = []
        for graft in self.grafts:
            cls: Any = graft.component.resolve(seam=nn.Module)
            if not issubclass(cls, Graft):
                raise ConfigError(f"What a {cls.__name__} does cannot be multiplied by a number ({factor}): it is not a sum.")
            scaled.append(replace(graft, tensors=cls.scaled(graft.tensors, factor)))
        return self._with(scaled, self.weights.scale(factor))

    def compose(self, other: Delta) -> ModuleDelta:
        """Return both as one; the other's modules stand around those of this one."""
        check_same_base(self, other)
        if isinstance(other, WeightDelta):
            return self._with(self.grafts, self.weights + other)
        if isinstance(other, ModuleDelta):
            lineage = {"composed_of": [dict(self.lineage), dict(other.lineage)]}
            composed = self._with((*self.grafts, *other.grafts), self.weights + other.weights)
            composed.base_fingerprint = self.base_fingerprint or other.base_fingerprint
            composed.base_prints, composed.lineage = self.base_prints or other.base_prints, lineage
            return composed
        raise ConfigError(f"A ModuleDelta cannot be composed with a {type(other).__name__}. Attach one after the other.")

    def after(self, earlier: Delta) -> ModuleDelta:
        """Return both as one; a difference of weights is the same before and after."""
        if not isinstance(earlier, WeightDelta):
            raise ConfigError(f"A ModuleDelta cannot follow a {type(earlier).__name__}. Attach one after the other.")
        return self.compose(earlier)

    def attach(self, model: nn.Module, *, check: bool = True) -> None:
        """Put the modules in, and change the weights; see :meth:`.Delta.attach`."""
        if self._model is not None:
            raise ConfigError("This delta is attached to a model already. Detach it first.")
        check_base(self, plain_state(model), self.weights.shapes, check=check)
        built: list[nn.Module] = []
        try:
            for graft in self.grafts:
                built.append(graft.build(model))
                self._insert(model, graft.place, built[-1])
            self.weights.attach(model, check=False)
        except BaseException:
            self._take_out(model, built)
            raise
        self._model, self._built = model, built

    def detach(self) -> None:
        """Take the modules out, whatever was put around them since, and give the old weights back."""
        if self._model is None:
            raise ConfigError("This delta is attached to no model. Call attach(model) first.")
        self.weights.detach()
        self._take_out(self._model, self._built)
        self._model, self._built = None, []

    def fold(self) -> None:
        """Refuse, unless there are no modules.

        Raises:
            ConfigError: If there are.
        """
        if self.grafts:
            kinds = sorted({graft.component.path.rpartition(":")[2] for graft in self.grafts})
            raise ConfigError(f"{', '.join(kinds)} cannot be written into weights. Keep the delta attached, or tune with LoRA.")
        self.weights.fold()
        self._model, self._built = None, []

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with metadata, atomically."""
        tensors = {
            f"{number}/{name}": tensor for number, graft in enumerate(self.grafts) for name, tensor in graft.tensors.items()
        }
        for name, part in self.weights.parts.items():
            tensors |= {f"{name}:{key}": tensor for key, tensor in part.tensors().items()}
        described = tuple(
            {"place": graft.place, "component": graft.component.path, "settings": dict(graft.component.settings)}
            for graft in self.grafts
        )
        write_delta_file(path, DeltaFile.of(self, self.weights.described(), tensors, described))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; see :meth:`.Delta.load`. Components of packages that are not allowed are refused."""
        return read_delta_file(path, cls.of_file)

    @classmethod
    def of_file(cls, file: DeltaFile) -> Self:
        """Return the delta in a file that was read."""
        grafts = []
        for number, facts in enumerate(file.grafts):
            component = Component(facts["component"], dict(facts["settings"]))
            # Before anything of it is imported: a file from elsewhere can name any class.
            component.check()
            prefix = f"{number}/"
            own = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.items() if name.startswith(prefix)}
            grafts.append(PlacedGraft(facts["place"], component, own))
        weights = WeightDelta.of_file(replace(file, grafts=()))
        return cls(grafts, weights, base_fingerprint=file.base_fingerprint, base_prints=file.base_prints, lineage=file.lineage)

    @staticmethod
    def _insert(model: nn.Module, place: str, module: nn.Module) -> None:
        if isinstance(module, SideNetwork):
            add_side(model, module)
        else:
            put_module(model, plain_module(model, place), module)

    def _take_out(self, model: nn.Module, built: Sequence[nn.Module]) -> None:
        # The outermost first.
        for graft, module in reversed(list(zip(self.grafts, built))):
            if isinstance(module, SideNetwork):
                if getattr(model, "side_network", None) is module:
                    remove_side(model)
                continue
            name = plain_module(model, graft.place)
            # Down the chain of wrappers to the one that holds ours.
            while (current := model.get_submodule(name)) is not module and isinstance(current, WrappingLayer):
                name = f"{name}.base"
            if current is module and isinstance(module, WrappingLayer):
                put_module(model, name, module.base)

    def _with(self, grafts: Sequence[PlacedGraft], weights: WeightDelta) -> ModuleDelta:
        facts: dict[str, Any] = {"base_fingerprint": self.base_fingerprint, "base_prints": self.base_prints}
        return ModuleDelta(grafts, weights, **facts, lineage=self.lineage)


def load_delta(path: str | Path) -> Delta:
    """Read the file of any delta.

    Raises:
        FileFormatError: If the file is damaged, or no delta.
        ComponentError: If it names a component of a package that is not allowed.
    """
    return read_delta_file(path, lambda file: ModuleDelta.of_file(file) if file.grafts else WeightDelta.of_file(file))

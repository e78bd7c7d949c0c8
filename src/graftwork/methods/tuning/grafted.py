"""What tuners share that put modules into a frozen model: attaching, what learns, and the delta."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

from torch import nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.nn.foldable import plain_state, put_module
from graftwork.nn.freeze import fix_mode, is_batch_norm
from graftwork.nn.grafts import Graft, own_tensors
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft

__all__ = ["GraftedTuning"]


class GraftedTuning(Tuner):
    """Freezes a model, statistics of BatchNorm included, and puts modules around some of its own."""

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self.grafts: dict[str, Graft] = {}
        """The modules by the name of what they stand around."""

    @abstractmethod
    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return the modules to put in, by the name of the module that each is built around; nothing is put in yet.

        Raises:
            ConfigError: If the model has no place for them.
        """

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put the modules in, in place.

        Raises:
            ConfigError: If there is no place, or this tuner is attached already.
        """
        name = type(self).__name__
        if self._model is not None:
            raise ConfigError(f"This {name} is attached to a model already; make one tuner a model.")
        model.requires_grad_(False)
        made = dict(self.make(model))
        for module in model.modules():
            if is_batch_norm(module):
                fix_mode(module)
        for place, graft in made.items():
            put_module(model, place, graft)
        self._model, self.grafts = model, made

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the modules."""
        for graft in self.grafts.values():
            yield from (parameter for name, parameter in graft.named_parameters() if not name.startswith("base."))

    def delta(self, model: nn.Module | None = None) -> ModuleDelta:
        """Return the modules with copies of their tensors; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError(f"This {type(self).__name__} is attached to no model yet; call attach(model) first.")
        source = self._model if model is None else model
        placed = []
        for place, graft in self.grafts.items():
            found = source.get_submodule(place)
            path = f"{type(graft).__module__}:{type(graft).__name__}"
            tensors = {name: tensor.detach().clone() for name, tensor in own_tensors(found).items()}
            placed.append(PlacedGraft(place, Component(path, graft.settings), tensors))
        base = plain_state(source)
        return ModuleDelta(
            placed,
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage={"tuner": type(self).__name__},
        )

    def fold(self) -> None:
        """Refuse.

        Raises:
            ConfigError: Always: the modules are no weights.
        """
        raise ConfigError(
            f"What {type(self).__name__} adds cannot be written into weights. Keep it attached (export and serving do), or tune "
            "with LoRA."
        )

"""What tuners share that put a layer of their own into the place of each layer they tune: freezing, folding, unfolding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.nn.foldable import give_own_parameters, plain_state, put_module
from graftwork.nn.freeze import fix_mode, is_batch_norm, release_mode
from graftwork.nn.weight_delta import Part, WeightDelta

__all__ = ["LayerTuner"]


Layer = TypeVar("Layer", bound=nn.Module)


class LayerTuner(Tuner, Generic[Layer]):
    """A tuner that fills :attr:`layers` on :meth:`attach`. Each has the plain layer as ``base``, and ``folded()`` returns it with what
    was learned in its parameters; those that change become new tensors."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        """The attached layers by name."""
        self._model: nn.Module | None = None
        self._base_weights: dict[tuple[str, str], nn.Parameter] = {}
        """While folded: the base's parameters by layer and name."""

    def fold(self) -> None:
        """Write what was learned into the base weights and put the plain layers back; :meth:`unfold` undoes it bit for bit.

        Raises:
            ConfigError: If the tuner is attached to no model.
        """
        model = self._attached()
        if self._base_weights:
            return
        for name, layer in self.layers.items():
            own: Any = layer
            # What is learned goes into new parameters, so these stay as they were: unfolding is exact, and ties hold again.
            self._base_weights |= {(name, key): tensor for key, tensor in own.base.named_parameters(recurse=False)}
            give_own_parameters(own.base)
            put_module(model, name, own.folded())
        for module in list(model.modules()):
            release_mode(module)

    def unfold(self) -> None:
        """Put the layers and the base weights back after :meth:`fold`.

        Raises:
            ConfigError: If the tuner is attached to no model.
        """
        model = self._attached()
        for (name, key), parameter in self._base_weights.items():
            own: Any = self.layers[name]
            setattr(own.base, key, parameter)
            put_module(model, name, own)
        for module in list(model.modules()):
            if self._base_weights and is_batch_norm(module):
                fix_mode(module)
        self._base_weights = {}

    def _freeze(self, model: nn.Module) -> None:
        """Freeze a model that gets its layers next, BatchNorm statistics included.

        Raises:
            ConfigError: If this tuner is attached already.
        """
        if self._model is not None:
            raise ConfigError(f"This {type(self).__name__} is attached to a model already; make one tuner for each model.")
        model.requires_grad_(False)
        for module in model.modules():
            if is_batch_norm(module):
                fix_mode(module)

    def _attached(self) -> nn.Module:
        if self._model is None:
            raise ConfigError(f"This {type(self).__name__} is attached to no model yet; call attach(model) first.")
        return self._model

    def _unfolded(self) -> nn.Module:
        """Return the attached model, from which a delta can be taken.

        Raises:
            ConfigError: If the tuner is attached to no model, or folded.
        """
        model = self._attached()
        if self._base_weights:
            raise ConfigError(f"This {type(self).__name__} is folded, so its base is gone; call unfold() first.")
        return model

    def _weight_delta(
        self,
        model: nn.Module | None,
        kind: type[Layer],
        parts_of: Callable[[Layer], Mapping[str, Part]],
        settings: Mapping[str, Any],
    ) -> WeightDelta:
        """Return what all layers learned as differences of their tensors.

        Args:
            model: As for :meth:`.Tuner.delta`.
            kind: Class of the layers.
            parts_of: Gives the differences of one layer by the names of the plain layer's parameters.
            settings: Of the tuner, for the lineage.

        Raises:
            ConfigError: If the tuner is attached to no model, or folded, or ``model`` is no copy of the attached one.
        """
        attached = self._unfolded()
        source, name_of_tuner = attached if model is None else model, type(self).__name__
        parts: dict[str, Part] = {}
        modules = dict(source.named_modules())
        for name in self.layers:
            layer = modules.get(name)
            if not isinstance(layer, kind):
                raise ConfigError(
                    f"The model given is no copy of the one that this {name_of_tuner} is attached to: it has no {kind.__name__} {name!r}. "
                    "Give a copy, or none."
                )
            parts |= {f"{name}.{key}": part for key, part in parts_of(layer).items()}
        base = plain_state(source)
        return WeightDelta(
            parts,
            {name: base[name].shape for name in parts},
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage={"tuner": name_of_tuner, **settings},
        )

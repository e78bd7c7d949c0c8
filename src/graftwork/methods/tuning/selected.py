"""What tuners share that let some of a model's own parameters learn and add none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.freeze import release_mode
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["SelectedTuning"]


class SelectedTuning(Tuner):
    """Freezes a model but for some of its parameters, and remembers the old values of those and of what training moves besides.

    The memory that this takes is that of the parameters that learn, and of the buffers.
    """

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._chosen: dict[str, nn.Parameter] = {}
        self._before: dict[str, Tensor] = {}

    @abstractmethod
    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return the names of the parameters that learn; called once, when the tuner is attached.

        Raises:
            ConfigError: If the model has none.
        """

    def attach(self, model: nn.Module) -> None:
        """Let the chosen parameters require a gradient and no other.

        Raises:
            ConfigError: If this tuner is attached already, or the model has no parameter of the kind.
        """
        if self._model is not None:
            raise ConfigError(f"This {type(self).__name__} is attached to a model already; make one tuner a model.")
        names = self.choose(model)
        parameters = dict(model.named_parameters())
        model.requires_grad_(False)
        self._chosen = {name: parameters[name] for name in names}
        for parameter in self._chosen.values():
            parameter.requires_grad_(True)
        # Buffers too: running statistics move in training mode though nothing learns them. Tied ones have several names.
        moving = {id(tensor) for tensor in (*self._chosen.values(), *model.buffers())}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        copies: dict[int, Tensor] = {}
        for _, tensor in named:
            if id(tensor) in moving and id(tensor) not in copies:
                copies[id(tensor)] = tensor.detach().clone()
        self._before = {name: copies[id(tensor)] for name, tensor in named if id(tensor) in moving}
        self._model = model

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the chosen parameters."""
        return iter(self._chosen.values())

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the differences of parameters and floating-point buffers (running statistics), dense; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError(f"This {type(self).__name__} is attached to no model yet; call attach(model) first.")
        now = {name: tensor.detach() for name, tensor in (model or self._model).state_dict().items()}
        # Names that are not in `_before` are frozen: their present values are the base's.
        base = {name: self._before.get(name, tensor) for name, tensor in now.items()}
        delta = WeightDelta.between(base, now, lineage={"tuner": type(self).__name__})
        delta.base_fingerprint = state_fingerprint(base)
        return delta

    def fold(self) -> None:
        """Release modules whose mode was fixed; what was learned is in plain weights already."""
        for module in [] if self._model is None else list(self._model.modules()):
            release_mode(module)

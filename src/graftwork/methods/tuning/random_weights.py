"""A few weights of every filter learn, drawn at random: what other cheap ways of tuning are compared with, number by number.

Paper: Frankle, Schwab and Morcos, "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs",
ICLR 2021, https://arxiv.org/abs/2003.00152, whose control trains two weights for each channel, as many as BatchNorm has there.
The paper masks gradients; here the chosen weights are parameters of their own (:mod:`graftwork.nn.chosen_weights`), so that
nothing else can move.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.chosen_weights import ChosenWeights, draw_places
from graftwork.nn.freeze import release_mode
from graftwork.nn.weight_delta import Part, Sparse, WeightDelta

__all__ = ["RandomWeights"]


class RandomWeights(Tuner):
    """``per_filter`` weights of every filter of the convolutions learn; the rest is frozen, scales and shifts of BatchNorm
    included.

    Running statistics of BatchNorm follow the data in training mode and are no part of the delta's sparse tensors but dense ones
    beside them.

    Args:
        per_filter: Weights for each output channel, at least 1.
        seed: Draws the places; None draws from torch's global generator.

    Raises:
        ConfigError: If ``per_filter`` is below 1; on :meth:`attach`, if the model has no convolution.
    """

    def __init__(self, *, per_filter: int = 2, seed: int | None = None) -> None:
        if per_filter < 1:
            raise ConfigError(f"`per_filter` must be at least 1; got {per_filter!r}.")
        self.per_filter, self.seed = per_filter, seed
        self.layers: dict[str, ChosenWeights] = {}
        self._model: nn.Module | None = None
        self._before: dict[str, Tensor] = {}
        self._folded = False

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put a layer with free weights in the place of every convolution, in place.

        Raises:
            ConfigError: If there is no convolution, or this tuner is attached already.
        """
        if self._model is not None:
            raise ConfigError("This RandomWeights is attached to a model already; make one tuner a model.")
        found = [(name, layer) for name, layer in model.named_modules() if name and isinstance(layer, nn.Conv2d)]
        if not found:
            raise ConfigError(f"RandomWeights needs convolutions inside the model; {type(model).__name__} has none. Choose LoRA.")
        model.requires_grad_(False)
        # Before the convolutions are wrapped, so that names are those of the plain model.
        self._before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        # One generator through all layers, in order: a seed fixes all places.
        for name, layer in found:
            self.layers[name] = ChosenWeights(layer, draw_places(layer, self.per_filter, generator))
            _put(model, name, self.layers[name])
        self._model = model

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the chosen weights, layer by layer."""
        return (layer.values for layer in self.layers.values())

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the differences of the chosen weights, sparse, and of running statistics, dense; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError("This RandomWeights is attached to no model yet; call attach(model) first.")
        if self._folded:
            raise ConfigError("This RandomWeights is folded, so its base is gone; take the delta before.")
        source = self._model if model is None else model
        now = {name: tensor.detach() for name, tensor in source.state_dict().items()}
        parts: dict[str, Part] = {}
        for name in self.layers:
            layer = source.get_submodule(name)
            assert isinstance(layer, ChosenWeights), "a copy of the attached model has its layers"
            places, _ = now.pop(f"{name}.places"), now.pop(f"{name}.values")
            for key in [key for key in now if key.startswith(f"{name}.base.")]:
                now[f"{name}.{key.removeprefix(f'{name}.base.')}"] = now.pop(key)
            size = now[f"{name}.weight"][0].numel()
            # Places inside a filter become places in the flat weight: filter f begins at f * size.
            flat = places + size * torch.arange(len(places), device=places.device).unsqueeze(1)
            parts[f"{name}.weight"] = Sparse(flat.flatten(), layer.difference().flatten())
        base = {name: self._before.get(name, tensor) for name, tensor in now.items()}
        moved = WeightDelta.between(base, now)
        parts |= moved.parts
        lineage = {"tuner": "RandomWeights", "per_filter": self.per_filter, "seed": self.seed}
        shapes = {name: base[name].shape for name in parts}
        return WeightDelta(parts, shapes, base_fingerprint=state_fingerprint(base), lineage=lineage)

    def fold(self) -> None:
        """Write the chosen weights into the plain convolutions and put these back."""
        if self._model is None or self._folded:
            return
        for name, layer in self.layers.items():
            _put(self._model, name, layer.folded())
        for module in list(self._model.modules()):
            release_mode(module)
        self._folded = True


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)

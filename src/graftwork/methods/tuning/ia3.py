"""IA3: learned factors on keys, values and hidden features of a frozen model.

Paper: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS 2022,
https://arxiv.org/abs/2205.05638, section 3.3: the outputs of the layers of keys and values and the inputs of the second layer of
each feed-forward network are multiplied by vectors that begin at one. The words are those of peft's ``IA3Config``, and adapters
are read and written in peft's folder format (:mod:`graftwork.methods.tuning.peft_ia3`).

Departures: layers that hold queries, keys and values in one (``qkv``) have all their outputs scaled; models without such layers, which
the paper does not speak of, have the outputs of all linear layers scaled, or of all pointwise convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.layer_tuner import LayerTuner
from graftwork.methods.tuning.lora import select_layers
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.foldable import put_module
from graftwork.nn.rescaled_layer import RescaledLayer, Side, can_rescale
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["IA3", "usual_layers"]

_KEYS_AND_VALUES = frozenset(
    ("k", "v", "kv", "qkv", "key", "value", "k_proj", "v_proj", "qkv_proj", "k_lin", "v_lin", "query_key_value", "Wqkv")
)
"""Last parts of the names that transformers give these layers."""
_NARROWS = 2
"""The second layer of a feed-forward network has at least so many times more inputs than outputs."""


def usual_layers(model: nn.Module) -> dict[str, Side]:
    """Return which layers get factors by default, and on which side, in the order of ``model.named_modules()``.

    Raises:
        ConfigError: If the model has neither a linear layer nor a pointwise convolution.
    """
    found: dict[str, Side] = {}
    for name, layer in model.named_modules():
        if not name or not isinstance(layer, nn.Linear):
            continue
        if name.rpartition(".")[2] in _KEYS_AND_VALUES:
            found[name] = "outputs"
        elif layer.in_features >= _NARROWS * layer.out_features:
            found[name] = "inputs"
    if "outputs" in found.values():
        return found
    # No attention that is known by name.
    return dict.fromkeys(select_layers(model, "auto"), "outputs")


class IA3(LayerTuner[RescaledLayer]):
    """Factors on outputs or inputs of chosen layers learn; everything else is frozen, BatchNorm statistics included.

    Args:
        target_modules: Which layers; ``"auto"`` takes those of :func:`usual_layers`, otherwise as
            :func:`~graftwork.methods.tuning.lora.select_layers` takes them.
        feedforward_modules: Those among them whose inputs are scaled and not their outputs, as ``target_modules``. Not with
            ``"auto"``, which finds them.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If ``feedforward_modules`` is given with ``"auto"``; on :meth:`attach`, if no layer matches, or layers of
            ``feedforward_modules`` are not among the targets.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3))
        >>> tuner = IA3()
        >>> tuner.attach(model)
        >>> sum(parameter.numel() for parameter in tuner.trainable())
        3
    """

    def __init__(
        self,
        *,
        target_modules: str | Sequence[str] = "auto",
        feedforward_modules: str | Sequence[str] = (),
        working_size: int | None = None,
    ) -> None:
        super().__init__()
        if target_modules == "auto" and feedforward_modules:
            raise ConfigError('`feedforward_modules` goes with `target_modules`; with "auto" both are found. Name both.')
        self.target_modules, self.feedforward_modules = (
            which if isinstance(which, str) else tuple(which) for which in (target_modules, feedforward_modules)
        )
        self.working_size = working_size

    def _chosen(self, model: nn.Module) -> dict[str, Side]:
        if self.target_modules == "auto":
            return usual_layers(model)
        chosen: dict[str, Side] = dict.fromkeys(select_layers(model, self.target_modules), "outputs")
        inner = select_layers(model, self.feedforward_modules) if self.feedforward_modules else []
        if odd := [name for name in inner if name not in chosen]:
            raise ConfigError(
                f"`feedforward_modules` also matches {odd[0]!r}, which is not among `target_modules`. Name it there."
            )
        return {**chosen, **dict.fromkeys(inner, "inputs")}

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put a layer with factors in the place of each chosen one, in place; it computes what it did before.

        Raises:
            ConfigError: See the class; or this tuner is attached already.
        """
        self.attach_layers(model, self._chosen(model))
        set_working_size(model, self.working_size)

    def attach_layers(self, model: nn.Module, sides: dict[str, Side]) -> None:
        """Like :meth:`attach` for the named layers, each with its own side."""
        self._freeze(model)
        for name, side in sides.items():
            self.layers[name] = RescaledLayer(model.get_submodule(name), side)
            put_module(model, name, self.layers[name])
        self._model = model

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the factors of every layer."""
        for layer in self.layers.values():
            yield layer.scale

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the factors as differences of weights and biases that depend on the base; see :class:`.Tuner`."""
        return self._weight_delta(model, RescaledLayer, RescaledLayer.parts, {})

    def save_pretrained(self, folder: str | Path, *, base_model: str = "") -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as peft does; see :func:`.peft_ia3.write_ia3`."""
        from graftwork.methods.tuning.peft_ia3 import write_ia3

        self._attached()
        write_ia3(self.layers, folder, base_model=base_model)

    @classmethod
    def from_pretrained(cls, model: nn.Module, folder: str | Path) -> Self:
        """Attach to ``model`` the adapter that peft or :meth:`save_pretrained` wrote into ``folder``.

        Raises:
            FileFormatError: If a file is missing, damaged or incomplete.
            ConfigError: If the adapter is of another kind or does not fit the model.
        """
        from graftwork.methods.tuning.peft_ia3 import read_ia3

        found, modules = read_ia3(folder), dict(model.named_modules())
        for name, scale in found.items():
            layer: Any = modules.get(name)
            fits = layer is not None and can_rescale(layer, scale.side) and layer.weight.shape[scale.axis] == len(scale.values)
            if not fits:
                what = "has no such layer" if layer is None else f"has there {layer}"
                raise ConfigError(
                    f"{folder} does not fit this model: it scales {len(scale.values)} {scale.side} of {name!r}; the model {what}."
                )
        tuner = cls(target_modules=tuple(found))
        tuner.attach_layers(model, {name: scale.side for name, scale in found.items()})
        for name, scale in found.items():
            tuner.layers[name].scale.data.copy_(scale.values)
        return tuner

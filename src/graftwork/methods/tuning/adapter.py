"""Bottleneck adapters: small networks between the blocks of a frozen model learn.

Papers: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, https://arxiv.org/abs/1902.00751; one adapter
at the end of each block as in Pfeiffer et al., "AdapterFusion", EACL 2021, https://arxiv.org/abs/2005.00247. In models without
blocks of tokens an adapter follows each pointwise convolution (or each convolution, or each linear layer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.methods.tuning.grafted import GraftedTuning
from graftwork.methods.tuning.lora import select_layers
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.grafts import Graft

__all__ = ["Adapters", "adapter_places"]


class Adapters(GraftedTuning):
    """Bottleneck adapters learn; everything else is frozen.

    Args:
        bottleneck: Hidden size of an adapter, at least 1; at most the width of the module that it follows is taken.
        target_modules: Behind which modules: ``"auto"`` (see this module's docstring), or layers as
            :func:`~graftwork.methods.tuning.lora.select_layers` takes them.
        depth_share: Share of the places that get an adapter, counted from the output, in ``(0, 1]``: the backward pass ends at
            the first one.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if no module takes an adapter.
    """

    def __init__(
        self,
        *,
        bottleneck: int = 16,
        target_modules: str | Sequence[str] = "auto",
        depth_share: float = 1.0,
        working_size: int | None = None,
    ) -> None:
        super().__init__()
        if bottleneck < 1:
            raise ConfigError(f"`bottleneck` must be at least 1; got {bottleneck!r}.")
        if not 0.0 < depth_share <= 1.0:
            raise ConfigError(f"`depth_share` must be in (0, 1]; got {depth_share!r}.")
        self.bottleneck, self.depth_share, self.working_size = bottleneck, depth_share, working_size
        self.target_modules = target_modules if isinstance(target_modules, str) else tuple(target_modules)

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model``, put the adapters in, and set the working size."""
        super().attach(model)
        set_working_size(model, self.working_size)

    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return an adapter for each chosen module."""
        widths = adapter_places(model, self.target_modules)
        kept = list(widths)[-math.ceil(self.depth_share * len(widths)) :]
        found: dict[str, Graft] = {}
        for name in kept:
            width, is_map = widths[name]
            hidden = min(self.bottleneck, width)
            base = model.get_submodule(name)
            found[name] = BottleneckAdapter(base, width=width, bottleneck=hidden, channels="second" if is_map else "last")
        return found


def adapter_places(model: nn.Module, target_modules: str | Sequence[str] = "auto") -> dict[str, tuple[int, bool]]:
    """Return width of the output, and whether it is a map, of every module that gets an adapter, by its name.

    Args:
        model: Any model.
        target_modules: See :class:`Adapters`.

    Raises:
        ConfigError: If no module takes one.
    """
    layers = dict(model.named_modules())
    if target_modules != "auto":
        return {name: _width(layers[name]) for name in select_layers(model, target_modules)}
    if isinstance(model, BlockBackbone) and all(shape.layout == "tokens" for shape in model.block_shapes()):
        names = {id(module): name for name, module in layers.items()}
        return {
            names[id(block)]: (shape.width, False) for block, shape in zip(model.block_list(), model.block_shapes(), strict=True)
        }
    encoders = {
        name: (layer.linear2.out_features, False)
        for name, layer in layers.items()
        if name and isinstance(layer, nn.TransformerEncoderLayer)
    }
    if encoders:
        return encoders
    found = {name: layer for name, layer in layers.items() if name and isinstance(layer, nn.Conv2d)}
    convolutions = list(found)
    pointwise = [name for name, layer in found.items() if set(layer.kernel_size) == {1} and layer.groups == 1]
    # nn.MultiheadAttention reads the weight of its output layer and never calls it.
    hidden = {id(layer.out_proj) for layer in layers.values() if isinstance(layer, nn.MultiheadAttention)}
    linear = [name for name, layer in layers.items() if name and isinstance(layer, nn.Linear) and id(layer) not in hidden]
    chosen = pointwise or (convolutions if len(convolutions) > len(linear) else linear)
    if not chosen:
        raise ConfigError(
            f"Adapters follow blocks, convolutions or linear layers inside the model, and {type(model).__name__} has none. "
            "Choose full tuning."
        )
    return {name: _width(layers[name]) for name in chosen}


def _width(layer: nn.Module) -> tuple[int, bool]:
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, True
    assert isinstance(layer, nn.Linear), "select_layers gives Linear and Conv2d layers"
    return layer.out_features, False

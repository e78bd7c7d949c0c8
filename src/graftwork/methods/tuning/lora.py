"""LoRA: low-rank updates on chosen layers of a frozen model.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, https://arxiv.org/abs/2106.09685. The words are
those of peft's ``LoraConfig``, and adapters are read and written in peft's folder format
(:mod:`graftwork.methods.tuning.peft_folder`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.layer_tuner import LayerTuner
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.foldable import put_module
from graftwork.nn.lora import LowRankLayer, can_wrap, wrap_layer
from graftwork.nn.weight_delta import LowRank, Part, WeightDelta

__all__ = ["LoRA", "select_layers"]


def select_layers(model: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Return the names of the layers that get an update, in the order of ``model.named_modules()``.

    Args:
        model: Any model.
        target_modules: As in peft a list of names (each matches the whole name or its end after a dot), a regular expression for
            the whole name, or ``"all-linear"``; besides, ``"auto"`` takes all linear layers, and in a model without any all
            1x1 convolutions without groups.

    Raises:
        ConfigError: If nothing matches, or a match is not a Linear or Conv2d layer without groups.
    """
    layers = dict(model.named_modules())
    # The model itself, under the empty name, cannot be replaced by a wrapper.
    layers.pop("", None)
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    if target_modules == "all-linear" or (target_modules == "auto" and linear):
        chosen = linear
    elif target_modules == "auto":
        chosen = [name for name, layer in layers.items() if can_wrap(layer) and _is_pointwise(layer)]
    elif isinstance(target_modules, str):
        try:
            pattern = re.compile(target_modules)
        except re.error as error:
            raise ConfigError(f"`target_modules` {target_modules!r} is no valid regular expression: {error}.") from error
        chosen = [name for name in layers if pattern.fullmatch(name)]
    else:
        chosen = [name for name in layers if any(name == target or name.endswith(f".{target}") for target in target_modules)]
    possible = [name for name, layer in layers.items() if can_wrap(layer)]
    if not chosen:
        raise ConfigError(_nothing_matches(target_modules, possible))
    wrong = [name for name in chosen if not can_wrap(layers[name])]
    if wrong:
        kinds = ", ".join(f"{name} ({type(layers[name]).__name__})" for name in wrong[:5])
        raise ConfigError(
            f"LoRA takes Linear layers and Conv2d layers without groups or standardised kernels; `target_modules` {target_modules!r} also "
            f"matches {kinds}. "
            'Name the layers more closely, or use target_modules="auto".'
        )
    return chosen


class LoRA(LayerTuner[LowRankLayer]):
    """Low-rank updates learn; everything else is frozen, BatchNorm statistics included.

    Args:
        r: Rank of the updates, at least 1.
        lora_alpha: Numerator of the scaling ``lora_alpha / r``.
        target_modules: Which layers; see :func:`select_layers`.
        lora_dropout: Dropout on the input of the updates, in ``[0, 1)``.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` instead.
        depth_share: Share of the chosen layers that get an update, counted from the output, in ``(0, 1]``. The backward pass ends at the
            first layer that learns, so that half the layers cost little more than half the time. Not a word of peft.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3))
        >>> tuner = LoRA(r=2)
        >>> tuner.attach(model)
        >>> sum(parameter.numel() for parameter in tuner.trainable())
        14
    """

    def __init__(
        self,
        *,
        r: int = 8,
        lora_alpha: float = 16.0,
        target_modules: str | Sequence[str] = "auto",
        lora_dropout: float = 0.0,
        use_rslora: bool = False,
        depth_share: float = 1.0,
        working_size: int | None = None,
    ) -> None:
        super().__init__()
        if r < 1:
            raise ConfigError(f"`r` must be at least 1; got {r!r}.")
        if not 0.0 <= lora_dropout < 1.0:
            raise ConfigError(f"`lora_dropout` must be in [0, 1); got {lora_dropout!r}.")
        if not 0.0 < depth_share <= 1.0:
            raise ConfigError(f"`depth_share` must be in (0, 1]; got {depth_share!r}.")
        self.depth_share, self.working_size = depth_share, working_size
        self.r, self.lora_alpha, self.lora_dropout, self.use_rslora = r, lora_alpha, lora_dropout, use_rslora
        self.target_modules = target_modules if isinstance(target_modules, str) else tuple(target_modules)

    @property
    def scaling(self) -> float:
        """Factor on every update."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and wrap its target layers, in place; the model computes what it did before.

        Raises:
            ConfigError: If no layer matches, or this tuner is attached already.
        """
        chosen = select_layers(model, self.target_modules)
        # named_modules lists layers in the order of definition, which for backbones is from input to output.
        kept = chosen[-math.ceil(self.depth_share * len(chosen)) :]
        self.attach_ranks(model, dict.fromkeys(kept, self.r))
        set_working_size(model, self.working_size)

    def attach_ranks(self, model: nn.Module, ranks: dict[str, int]) -> None:
        """Like :meth:`attach` for the named layers, each with its own rank."""
        self._freeze(model)
        for name, rank in ranks.items():
            # The layer's own rank, as in peft: adapters may have several ranks.
            scaling = self.lora_alpha / (math.sqrt(rank) if self.use_rslora else rank)
            self.layers[name] = wrap_layer(model.get_submodule(name), rank, scaling, self.lora_dropout)
            put_module(model, name, self.layers[name])
        self._model = model

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield ``A`` and ``B`` of every layer."""
        for layer in self.layers.values():
            yield from layer.down.parameters()
            yield from layer.up.parameters()

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the updates as low-rank differences of the layers' weights; see :class:`.Tuner`."""
        settings = {"r": self.r, "lora_alpha": self.lora_alpha, "use_rslora": self.use_rslora}
        return self._weight_delta(model, LowRankLayer, _part_of, settings)  # type: ignore[type-abstract] # only looked for

    def save_pretrained(self, folder: str | Path, *, base_model: str = "") -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as peft does; see :func:`.peft_folder.save_adapter`."""
        from graftwork.methods.tuning.peft_folder import save_adapter

        self._attached()
        settings = {name: getattr(self, name) for name in ("r", "lora_alpha", "lora_dropout", "use_rslora")}
        save_adapter(self.layers, settings, folder, base_model=base_model)

    @classmethod
    def from_pretrained(cls, model: nn.Module, folder: str | Path) -> Self:
        """Attach to ``model`` the adapter that peft or :meth:`save_pretrained` wrote into ``folder``."""
        from graftwork.methods.tuning.peft_folder import load_adapter

        settings, ranks, tensors = load_adapter(folder)
        tuner = cls(**settings)
        tuner.attach_ranks(model, _checked(ranks, model, folder))
        tuner.load_tensors(tensors, folder)
        return tuner

    def load_tensors(self, tensors: dict[str, tuple[Tensor, Tensor]], source: str | Path = "the adapter") -> None:
        """Set ``A`` and ``B`` of each layer.

        Raises:
            ConfigError: If a shape does not fit the model.
        """
        for name, pair in tensors.items():
            layer = self.layers[name]
            for part, tensor in zip((layer.down, layer.up), pair):
                weight: Any = part.weight
                if weight.shape != tensor.shape:
                    raise ConfigError(
                        f"{source} does not fit this model: layer {name!r} needs {list(weight.shape)}, "
                        f"the file holds {list(tensor.shape)}."
                    )
                weight.data.copy_(tensor)


def _part_of(layer: LowRankLayer) -> dict[str, Part]:
    down, up = (tensor.detach().clone() for tensor in (layer.down.weight, layer.up.weight))  # type: ignore[operator, union-attr]
    return {"weight": LowRank(down, up, layer.scaling)}


def _checked(ranks: dict[str, int], model: nn.Module, source: str | Path) -> dict[str, int]:
    layers = dict(model.named_modules())
    unknown = [name for name in ranks if name not in layers or not can_wrap(layers[name])]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], [name for name, layer in layers.items() if can_wrap(layer)], n=1)
        hint = f" The nearest one is {nearest[0]!r}." if nearest else ""
        raise ConfigError(
            f"{source} was made for another model: this one has no layer {unknown[0]!r} that takes an update"
            f" ({len(unknown)} of {len(ranks)} layers are missing).{hint}"
        )
    return ranks


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and set(layer.kernel_size) == {1}


def _nothing_matches(target_modules: str | Sequence[str], possible: Sequence[str]) -> str:
    message = f"`target_modules` {target_modules!r} matches no layer of the model."
    if not possible:
        return f"{message} It has no Linear layer and no Conv2d layer without groups, so LoRA cannot be used; take full tuning."
    words = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    ends = sorted({name.rpartition(".")[2] for name in possible} | set(possible))
    nearest = [match for word in words for match in difflib.get_close_matches(word, ends, n=1)]
    hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
    return f'{message} Layers that can be named: {", ".join(possible[:6])}{", ..." if len(possible) > 6 else ""}; or use "auto".{hint}'

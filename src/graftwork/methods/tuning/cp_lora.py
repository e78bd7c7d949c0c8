"""CP-LoRA and its relatives: convolutions tuned by updates of low rank, in three forms, as they are or weight-decomposed.

Paper: "LoRA-based methods on Unet for transfer learning in Subarachnoid Hematoma Segmentation", 2025,
https://arxiv.org/abs/2508.01772 (abstract read; the forms are those of loralib and DoRA, which it names).

======================  ==========================  =============================
                        ``decompose = false``       ``decompose = true``
======================  ==========================  =============================
``form = "cp"``         CP-LoRA                     CP-DoRA
``form = "lora-c"``     LoRA-C                      DoRA-C
``form = "conv-lora"``  convLoRA                    convDoRA
======================  ==========================  =============================

Symbols: ``R`` = ``r``; ``s`` = ``lora_alpha / r``; ``a, b, p, q`` are the factors of :class:`.UpdatedLayer` in this order, ``a``
begins at zero; ``m`` is its ``magnitude``.

Departures: the paper's code is not released; the scale is that of LoRA, and CP factors are drawn with columns of norm 1 on average.
Linear layers, which a U-Net lacks, get the same forms with the two dimensions that they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.layer_tuner import LayerTuner
from graftwork.methods.tuning.lora import select_layers
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.foldable import put_module
from graftwork.nn.updated_layer import UpdatedLayer, UpdateForm, can_update
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["CPLoRA"]


class CPLoRA(LayerTuner[UpdatedLayer]):
    """Updates of the weights of convolutions and linear layers learn; everything else is frozen, BatchNorm statistics included.

    Args:
        r: Rank of the updates, at least 1; it may be above the dimensions of the layers.
        lora_alpha: Numerator of the scaling ``lora_alpha / r``.
        form: How an update is made of factors: ``"cp"``, ``"lora-c"`` or ``"conv-lora"``; see :data:`.UpdateForm`.
        decompose: Whether the magnitude of each output filter learns apart from its direction (DoRA).
        target_modules: Which layers: ``"auto"`` takes all convolutions, with and without groups, and all linear layers; otherwise as
            :func:`~graftwork.methods.tuning.lora.select_layers` takes them.
        depth_share: Share of the chosen layers that get an update, counted from the output, in ``(0, 1]``.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if no layer takes an update.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 3))
        >>> tuner = CPLoRA(r=2)
        >>> tuner.attach(model)
        >>> sum(parameter.numel() for parameter in tuner.trainable())  # 2 * (8 + 4 + 3 + 3)
        36
    """

    def __init__(
        self,
        *,
        r: int = 8,
        lora_alpha: float = 16.0,
        form: UpdateForm = "cp",
        decompose: bool = False,
        target_modules: str | Sequence[str] = "auto",
        depth_share: float = 1.0,
        working_size: int | None = None,
    ) -> None:
        super().__init__()
        if r < 1:
            raise ConfigError(f"`r` must be at least 1; got {r!r}.")
        if not 0.0 < depth_share <= 1.0:
            raise ConfigError(f"`depth_share` must be in (0, 1]; got {depth_share!r}.")
        # Here as well as in the layer: a wrong word is found before a model is built.
        if form not in ("cp", "lora-c", "conv-lora"):
            raise ConfigError(f"`form` must be one of cp, lora-c, conv-lora; got {form!r}.")
        self.r, self.lora_alpha, self.decompose, self.depth_share = r, lora_alpha, decompose, depth_share
        self.form: UpdateForm = form
        self.working_size = working_size
        self.target_modules = target_modules if isinstance(target_modules, str) else tuple(target_modules)

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put an updated layer in the place of each chosen one, in place; it computes what it did before.

        Raises:
            ConfigError: If no layer matches, or this tuner is attached already.
        """
        chosen = self._chosen(model)
        self._freeze(model)
        for name in chosen[-math.ceil(self.depth_share * len(chosen)) :]:
            base = model.get_submodule(name)
            scaling = self.lora_alpha / self.r
            self.layers[name] = UpdatedLayer(base, form=self.form, rank=self.r, scaling=scaling, decompose=self.decompose)
            put_module(model, name, self.layers[name])
        self._model = model
        set_working_size(model, self.working_size)

    def _chosen(self, model: nn.Module) -> list[str]:
        if self.target_modules != "auto":
            return select_layers(model, self.target_modules)
        found = [name for name, layer in model.named_modules() if name and can_update(layer)]
        if not found:
            raise ConfigError(
                f"CP-LoRA and its relatives update Conv2d and Linear layers inside the model; {type(model).__name__} has none. "
                "Choose full tuning."
            )
        return found

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield factors and magnitudes, layer by layer."""
        for layer in self.layers.values():
            yield from layer.factors
            if layer.magnitude is not None:
                yield layer.magnitude

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the updates as differences of the layers' weights: CP or low rank, decomposed where asked; see :class:`.Tuner`."""
        settings = {"r": self.r, "lora_alpha": self.lora_alpha, "form": self.form, "decompose": self.decompose}
        return self._weight_delta(model, UpdatedLayer, lambda layer: {"weight": layer.part()}, settings)

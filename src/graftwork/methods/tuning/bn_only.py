"""BatchNorm-only tuning: the scales and shifts of all BatchNorm layers learn, everything else stays as it is.

Paper: Frankle, Schwab and Morcos, "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs",
ICLR 2021, https://arxiv.org/abs/2003.00152. There the other weights are random; on a pretrained backbone the same parameters are
the cheapest ones to tune and
to store, two numbers a channel and its two running statistics. Symbols: ``gamma`` is ``weight`` of a BatchNorm layer, ``beta``
its ``bias``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.selected import SelectedTuning
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.freeze import is_batch_norm

__all__ = ["BatchNormOnly", "draw_scales_", "small_scale_share", "zero_small_scales_"]


class BatchNormOnly(SelectedTuning):
    """``gamma`` and ``beta`` of every BatchNorm layer learn; running statistics follow the data in training mode, as they always
    do.

    Args:
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: On :meth:`attach`, if the model has no BatchNorm layer with a scale and a shift.
    """

    def __init__(self, *, working_size: int | None = None) -> None:
        super().__init__()
        self.working_size = working_size

    def attach(self, model: nn.Module) -> None:
        """Let scales and shifts learn, and nothing else; set the working size."""
        super().attach(model)
        set_working_size(model, self.working_size)

    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return ``<layer>.weight`` and ``<layer>.bias`` of all BatchNorm layers, in the model's order."""
        names = [
            f"{layer}.{part}" if layer else part
            for layer, module in model.named_modules()
            if is_batch_norm(module)
            for part in ("weight", "bias")
            # BatchNorm with affine=False has neither.
            if getattr(module, part) is not None
        ]
        if not names:
            kinds = sorted({type(module).__name__ for module in model.modules() if "Norm" in type(module).__name__})
            has = f" It normalises with {', '.join(kinds)}." if kinds else ""
            raise ConfigError(
                f"BatchNorm-only tuning needs BatchNorm layers with a scale and a shift; "
                f"{type(model).__name__} has none.{has} Choose a "
                "convolutional backbone, or LoRA."
            )
        return names


@torch.no_grad()
def draw_scales_(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw ``gamma`` of every BatchNorm layer from the uniform distribution on [0, 1) and set ``beta`` to 0, in place, as the
    paper starts."""
    for module in model.modules():
        if is_batch_norm(module) and module.weight is not None:
            weight: Tensor = module.weight  # type: ignore[assignment]
            # Drawn on the CPU, so that a seed gives the same scales on every device.
            weight.copy_(torch.rand(weight.shape, generator=generator))
            module.bias.zero_()  # type: ignore[union-attr, operator]


def small_scale_share(model: nn.Module, threshold: float = 0.01) -> float:
    """Return the share of all ``gamma`` whose magnitude is below ``threshold``: channels that are switched off.

    Raises:
        ConfigError: If the model has no BatchNorm layer with a scale.
    """
    scales = [module.weight for module in model.modules() if is_batch_norm(module) and module.weight is not None]
    if not scales:
        raise ConfigError(f"{type(model).__name__} has no BatchNorm layer with a scale.")
    values: Tensor = torch.cat([scale.detach().flatten() for scale in scales])  # type: ignore[union-attr, operator]
    return float((values.abs() < threshold).float().mean())


@torch.no_grad()
def zero_small_scales_(model: nn.Module, threshold: float = 0.01) -> None:
    """Set every ``gamma`` whose magnitude is below ``threshold`` to 0, in place: the channel passes on its ``beta`` alone."""
    for module in model.modules():
        if is_batch_norm(module) and module.weight is not None:
            weight: Tensor = module.weight  # type: ignore[assignment]
            weight.masked_fill_(weight.abs() < threshold, 0.0)

"""Norm-only tuning: the scales and shifts of all normalisation layers learn, everything else stays as it is.

Papers: Qi et al., "Parameter-Efficient Tuning on Layer Normalization", 2022, https://arxiv.org/abs/2211.08682; for BatchNorm
alone see :mod:`graftwork.methods.tuning.bn_only`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.selected import SelectedTuning
from graftwork.nn.backbones.resizable import set_working_size

__all__ = ["NormOnly"]


class NormOnly(SelectedTuning):
    """Scales and shifts of LayerNorm, BatchNorm, GroupNorm, InstanceNorm and RMSNorm layers learn; running statistics follow the
    data in training mode.

    Args:
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: On :meth:`attach`, if the model has no such layer.
    """

    def __init__(self, *, working_size: int | None = None) -> None:
        super().__init__()
        self.working_size = working_size

    def attach(self, model: nn.Module) -> None:
        """Let scales and shifts learn, and nothing else; set the working size."""
        super().attach(model)
        set_working_size(model, self.working_size)

    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return the parameters of all normalisation layers, in the model's order."""
        # By the name of the class: libraries have norms of their own (timm's LayerNorm2d, RMSNorm of many).
        layers = [name for name, module in model.named_modules() if "Norm" in type(module).__name__]
        names = [
            f"{layer}.{name}" if layer else name
            for layer in layers
            for name, _ in model.get_submodule(layer).named_parameters(recurse=False)
        ]
        if not names:
            raise ConfigError(
                f"Norm-only tuning needs normalisation layers with a scale or a shift; {type(model).__name__} has none. "
                "Choose LoRA."
            )
        return names

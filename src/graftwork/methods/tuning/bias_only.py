"""Bias-only tuning (BitFit): the biases of all layers learn, everything else stays as it is.

Paper: Ben Zaken, Goldberg and Ravfogel, "BitFit", ACL 2022, https://arxiv.org/abs/2106.10199.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.selected import SelectedTuning
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.freeze import fix_mode, is_batch_norm

__all__ = ["BiasOnly"]


class BiasOnly(SelectedTuning):
    """Biases learn, those of normalisation layers among them; running statistics of BatchNorm stay.

    Args:
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: On :meth:`attach`, if the model has no bias.
    """

    def __init__(self, *, working_size: int | None = None) -> None:
        super().__init__()
        self.working_size = working_size

    def attach(self, model: nn.Module) -> None:
        """Let biases learn, and nothing else; set the working size."""
        super().attach(model)
        set_working_size(model, self.working_size)
        for module in model.modules():
            if is_batch_norm(module):
                fix_mode(module)

    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return all parameters called ``bias``, or ``..._bias``, in the model's order."""
        names = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias" or name.endswith("_bias")]
        if not names:
            raise ConfigError(f"Bias-only tuning needs layers with a bias; {type(model).__name__} has none. Choose LoRA.")
        return names

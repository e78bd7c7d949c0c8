"""Full tuning: every weight of the backbone learns."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from graftwork.methods.tuning.selected import SelectedTuning
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.freeze import fix_mode, is_batch_norm

__all__ = ["FullTuning"]


class FullTuning(SelectedTuning):
    """All parameters learn, as in plain fine-tuning.

    Args:
        freeze_batch_norm: Whether BatchNorm layers keep the running statistics they were pretrained with, in training mode too;
            their scale and shift learn all the same. Useful with small batches, or pictures unlike those of pretraining.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.
    """

    def __init__(self, *, freeze_batch_norm: bool = False, working_size: int | None = None) -> None:
        super().__init__()
        self.freeze_batch_norm, self.working_size = freeze_batch_norm, working_size

    def attach(self, model: nn.Module) -> None:
        """Let all parameters learn; set the working size and fix the statistics of BatchNorm if asked to."""
        super().attach(model)
        set_working_size(model, self.working_size)
        if self.freeze_batch_norm:
            for module in model.modules():
                if is_batch_norm(module):
                    fix_mode(module)

    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return all names."""
        return [name for name, _ in model.named_parameters()]

"""Full tuning: every weight of the backbone learns."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from graftwork.interfaces.tuner import Tuner
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.freeze import fix_mode, is_batch_norm, release_mode

__all__ = ["FullTuning"]


class FullTuning(Tuner):
    """All parameters learn, as in plain fine-tuning.

    Args:
        freeze_batch_norm: Whether BatchNorm layers keep the running statistics they were pretrained with, in training mode too;
            their scale and shift learn all the same. Useful with small batches, or pictures unlike those of pretraining.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.
    """

    def __init__(self, *, freeze_batch_norm: bool = False, working_size: int | None = None) -> None:
        self.freeze_batch_norm, self.working_size = freeze_batch_norm, working_size
        self._model: nn.Module | None = None

    def attach(self, model: nn.Module) -> None:
        """Let every parameter require a gradient; fix the statistics of BatchNorm and set the working size if asked to."""
        set_working_size(model, self.working_size)
        model.requires_grad_(True)
        self._model = model
        if self.freeze_batch_norm:
            for module in model.modules():
                if is_batch_norm(module):
                    fix_mode(module)

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield all parameters."""
        return iter(()) if self._model is None else self._model.parameters()

    def fold(self) -> None:
        """Release the BatchNorm layers; what was learned is in plain weights already."""
        for module in [] if self._model is None else list(self._model.modules()):
            release_mode(module)

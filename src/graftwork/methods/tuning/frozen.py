"""Frozen backbone: nothing of it learns, only the heads on its features do (linear probing)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.backbones.depths import read_depths
from graftwork.nn.freeze import fix_mode, release_mode
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["Frozen"]


class Frozen(Tuner):
    """No parameter of the model requires a gradient, and the model stays in evaluation mode.

    Evaluation mode matters as much as the weights: BatchNorm would go on moving its running statistics in training mode, dropout
    would blur the features. Equal inputs always give equal features, so that they can be computed once and kept in a feature
    store.

    Args:
        depths: Whether backbones that can give pooled states of several depths do so (:mod:`graftwork.nn.backbones.depths`);
            others give their last features.
    """

    def __init__(self, depths: bool = False) -> None:
        self.depths = depths
        self._model: nn.Module | None = None

    def attach(self, model: nn.Module) -> None:
        """Freeze all parameters and the mode of ``model``, in place."""
        model.requires_grad_(False)
        # `eval()` alone would be undone by the next `train()` of the training loop.
        fix_mode(model)
        if self.depths:
            read_depths(model)
        self._model = model

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield nothing."""
        return iter(())

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return an empty delta: nothing was learned."""
        if self._model is None:
            raise ConfigError("This Frozen is attached to no model yet; call attach(model) first.")
        fingerprint = state_fingerprint((model or self._model).state_dict())
        return WeightDelta({}, {}, base_fingerprint=fingerprint, lineage={"tuner": "Frozen"})

    def fold(self) -> None:
        """Release the mode; the weights never changed."""
        if self._model is not None:
            release_mode(self._model)

    def keeps_features_fixed(self) -> bool:
        """Return True."""
        return True

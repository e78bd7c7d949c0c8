"""The classifiers that pretrained backbones were trained with: class probabilities from their features, for scores that ask how a
source's own classes and the target's go together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftwork.core.optional import require
from graftwork.nn.backbones.lite0 import to_timm_names, weight_file

__all__ = ["SourceHead", "source_head"]


class SourceHead:
    """Linear classifier on features.

    Args:
        weight: ``[classes, width]``.
        bias: ``[classes]``.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.weight, self.bias = weight, bias

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities ``[n, classes]`` of features ``[n, width]``."""
        logits = features @ self.weight.T + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def source_head(name: str) -> SourceHead | None:
    """Return the classifier of a backbone of :mod:`graftwork.nn.backbones.catalog`; None if none comes with its weights."""
    base = name.partition("@")[0]
    if base == "efficientnet_lite0":
        state = to_timm_names(torch.load(weight_file(), map_location="cpu", weights_only=True))
        return SourceHead(state["classifier.weight"].numpy(), state["classifier.bias"].numpy())
    if base.startswith("timm:"):
        timm = require("timm", extra="vision", purpose=f'The classifier of "{base}"')
        layer = timm.create_model(base.removeprefix("timm:"), pretrained=True).get_classifier()
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            return SourceHead(layer.weight.detach().numpy(), layer.bias.detach().numpy())
    return None

"""Adversarial features: gradient reversal, the classifier that it is played against, and how strongly.

Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", https://arxiv.org/abs/1505.07818.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.nn.mlp import mlp

__all__ = ["DomainClassifier", "pool_features", "ramp_up", "reverse_gradient"]


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, strength: float) -> Tensor:
        context.strength = strength
        # A view, not the tensor itself: autograd would take an input that is returned as it is for unchanged.
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """Return ``features`` unchanged, with a backward pass that multiplies their gradient by ``-strength``.

    What reads the result learns from its whole gradient: only what made the features gets the reversed and scaled one.

    Args:
        features: Any shape.
        strength: At least 0; 0 gives the features no gradient at all.

    Example:
        >>> features = torch.ones(2, requires_grad=True)
        >>> reverse_gradient(features, 0.5).sum().backward()
        >>> features.grad.tolist()
        [-0.5, -0.5]
    """
    # torch declares `apply` without types
    return _ReverseGradient.apply(features, strength)  # type: ignore[no-untyped-call, no-any-return]


def ramp_up(progress: float, sharpness: float = 10.0) -> float:
    """Return ``2 / (1 + exp(-sharpness * progress)) - 1``: 0 at the beginning, nearly 1 at the end.

    Args:
        progress: Share of the training that is done; cut to [0, 1].
        sharpness: At least 0; how soon it rises.

    Example:
        >>> [round(ramp_up(progress), 3) for progress in (0.0, 0.1, 1.0)]
        [0.0, 0.462, 1.0]
    """
    return 2.0 / (1.0 + math.exp(-sharpness * min(max(progress, 0.0), 1.0))) - 1.0


class DomainClassifier(nn.Module):
    """Tells the domain of a row from its features ``[B, width]``: a small MLP.

    Args:
        width: Width of the features.
        hidden: Widths of the hidden layers; empty gives a linear classifier.
        num_outputs: Logits a row; 1 for two domains.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, *, hidden: Sequence[int] = (100,), num_outputs: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = mlp([width, *hidden, num_outputs], dropout=dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[B, num_outputs]``."""
        logits: Tensor = self.layers(features)
        return logits


def pool_features(features: Tensor) -> Tensor:
    """Return one vector a row: vectors ``[B, C]`` as they are, tokens ``[B, N, C]`` and maps ``[B, C, H, W]`` as means."""
    if features.ndim == 3:
        return features.mean(dim=1)
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features

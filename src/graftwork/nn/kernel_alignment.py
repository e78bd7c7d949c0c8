r"""Centred kernel alignment of two layers on one batch, as a differentiable function.

Paper: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, https://arxiv.org/abs/1905.00414. With
the centred Gram matrices :math:`\bar K, \bar L` of the rows it is
:math:`\langle \bar K, \bar L \rangle / (\lVert \bar K \rVert \lVert \bar L \rVert)`.
:func:`graftwork.math.representation_similarity.linear_cka` measures the same on stored features.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["centred_gram", "kernel_alignment"]


def centred_gram(states: Tensor) -> Tensor:
    """Return the centred Gram matrix of rows, ``[n, n]``: inner products of what is left of them without their mean.

    Args:
        states: ``[n, ...]``; everything behind the first dimension is one long vector.
    """
    flat = states.flatten(1).float()
    # Centring the rows centres the matrix on both sides: H X X' H = (H X)(H X)'.
    flat = flat - flat.mean(dim=0, keepdim=True)
    return flat @ flat.T


def kernel_alignment(first: Tensor, second: Tensor) -> Tensor:
    """Return the linear centred kernel alignment of two layers, a scalar in [0, 1]; 0 if one of them does not vary over the rows.

    It is biased for few rows: of two layers that have nothing in common it finds the more alike the fewer rows there are.

    Args:
        first: ``[n, ...]``, what one layer gives for ``n`` rows.
        second: ``[n, ...]`` of another layer for the same rows, of any shape.

    Example:
        >>> states = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
        >>> round(float(kernel_alignment(states, 3.0 * states.flip(1) + 1.0)), 4)
        1.0
    """
    one, two = centred_gram(first), centred_gram(second)
    size = one.square().sum() * two.square().sum()
    # The root has no gradient at 0, where a layer does not vary.
    return torch.where(size > 0, (one * two).sum() / size.clamp(min=1e-30).sqrt(), 0.0 * (one.sum() + two.sum()))

"""How far two samples of features lie apart, as a loss.

Paper: Long et al., "Learning Transferable Features with Deep Adaptation Networks", https://arxiv.org/abs/1502.02791, after
Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["mean_discrepancy"]


def mean_discrepancy(left: Tensor, right: Tensor, *, factors: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0)) -> Tensor:
    """Return the squared maximum mean discrepancy of two samples under a mean of Gaussian kernels, a scalar of at least 0.

    Args:
        left: ``[N, D]``, at least one row.
        right: ``[M, D]``, at least one row.
        factors: Widths of the kernels, each a factor on the mean squared distance of two rows of both samples together, which
            takes no gradient.

    Example:
        >>> sample = torch.tensor([[0.0], [1.0]])
        >>> float(mean_discrepancy(sample, sample))
        0.0
    """
    both = torch.cat([left, right])
    norms = both.square().sum(dim=1)
    # |x - y|^2 from inner products; cancellation can leave it slightly negative.
    squared = (norms[:, None] + norms[None, :] - 2.0 * both @ both.T).clamp(min=0.0)
    # Follows the features' scale, so that a loss cannot be lowered by shrinking them all.
    width = squared.detach().mean().clamp(min=torch.finfo(both.dtype).tiny)
    kernel = torch.stack([torch.exp(-squared / (factor * width)) for factor in factors]).mean(dim=0)
    first, second = slice(0, len(left)), slice(len(left), None)
    # The biased estimate, with the diagonal: at least 0, but for rounding.
    return (kernel[first, first].mean() + kernel[second, second].mean() - 2.0 * kernel[first, second].mean()).clamp(min=0.0)

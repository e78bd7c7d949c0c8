"""Moving weights uphill and back: what all sharpness-aware methods and the sharpness meter are made of.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", https://arxiv.org/abs/2010.01412, equation
2, and Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization", https://arxiv.org/abs/2102.11600, equation 8.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["ascent_offsets", "global_norm", "restored", "shifted"]


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all values of all tensors together, a scalar; 0 without any tensor."""
    if not tensors:
        return torch.zeros(())
    # The norm of the norms is the norm of all values; nothing has to be joined.
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


@torch.no_grad()
def ascent_offsets(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], radius: float | Tensor, *, adaptive: bool = False, eta: float = 0.0
) -> list[Tensor]:
    r"""Return the step that raises a loss most within a ball, to first order: one new tensor per parameter.

    Plain: :math:`\rho\, g / \lVert g \rVert`. Adaptive, with :math:`T = |\theta| + \eta` elementwise:
    :math:`\rho\, T^2 g / \lVert T g \rVert`, so that large weights may move further. A zero gradient gives zeros.

    Args:
        parameters: :math:`\theta`; one norm is taken over all of them.
        gradients: :math:`g`, of the same shapes; not changed.
        radius: :math:`\rho`, at least 0; a scalar tensor is not waited for.
        adaptive: Whether to scale by the weights.
        eta: Added to the absolute weights, at least 0.
    """
    if not parameters:
        return []
    offsets = list(gradients)
    scales: list[Tensor] = []
    if adaptive:
        scales = list(torch._foreach_abs(list(parameters)))
        if eta:
            torch._foreach_add_(scales, eta)
        offsets = list(torch._foreach_mul(offsets, scales))
    norm = global_norm(offsets)
    limits = torch.finfo(norm.dtype)
    # The clamps are for zero gradients: 0 / 0 would be NaN, and so would 0 times a factor that overflowed.
    factor = (radius / norm.clamp(min=limits.tiny)).clamp(max=limits.max)
    if adaptive:
        # The offsets hold T g already; the step needs T^2 g.
        torch._foreach_mul_(offsets, scales)
        torch._foreach_mul_(offsets, factor)
        return offsets
    return list(torch._foreach_mul(offsets, factor))


@contextlib.contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Put back copies of the parameters at the end, bit for bit (subtracting what was added would round)."""
    owned = list(parameters)
    with torch.no_grad():
        copies = [parameter.detach().clone() for parameter in owned]
    try:
        yield
    finally:
        if owned:
            with torch.no_grad():
                torch._foreach_copy_(owned, copies)


@contextlib.contextmanager
def shifted(parameters: Sequence[Tensor], offsets: Sequence[Tensor]) -> Iterator[None]:
    """Add offsets to the parameters for the time of the block; see :func:`restored`."""
    with restored(parameters):
        if parameters:
            with torch.no_grad():
                torch._foreach_add_(list[Tensor](parameters), list[Tensor](offsets))
        yield

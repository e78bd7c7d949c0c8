"""Norms that compute the same and hold little for the backward pass, where their scale is frozen.

Papers: S2A, https://arxiv.org/abs/2503.08154: the normalised values of layer norms in 4 bits; MobileTL,
https://arxiv.org/abs/2212.03246: batch norms with frozen statistics and scale hold nothing, and their shift learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from graftwork.math.packed_codes import decode_4bit, encode_4bit, row_ranges

__all__ = ["coded_layer_norm", "shift_only_norm"]


def coded_layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return ``F.layer_norm(...)``; the normalised values are held in 4 bits over the range of each row.

    The gradient reaches ``x`` and ``bias``. A scale that learns needs the exact values: NotImplemented is returned.
    """
    if weight is not None and weight.requires_grad:
        return NotImplemented
    return _CodedLayerNorm.apply(x, tuple(normalized_shape), weight, bias, eps)  # type: ignore[no-any-return]


def shift_only_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``F.batch_norm(...)``, ``x`` of shape ``[B, C, ...]``; nothing as large as ``x`` is held.

    The gradient reaches ``x`` and ``bias``. Where statistics are those of the batch or the scale learns, NotImplemented is returned.
    """
    if training or running_mean is None or running_var is None or (weight is not None and weight.requires_grad):
        return NotImplemented
    return _ShiftOnlyNorm.apply(x, running_mean, running_var, weight, bias, eps)  # type: ignore[no-any-return]


class _CodedLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        output, mean, rstd = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        ctx.shape, ctx.num_dims, ctx.dtype = x.shape, len(shape), x.dtype
        if not ctx.needs_input_grad[0]:
            # The shift alone learns, and its gradient is a sum of those that come in.
            return output
        normal = (x - mean) * rstd
        low, high = row_ranges(normal, len(shape))
        ctx.save_for_backward(encode_4bit(normal, low, high), low, high, rstd, weight)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        on_x = on_bias = None
        if ctx.needs_input_grad[3]:
            on_bias = grad.sum(dim=tuple(range(grad.ndim - ctx.num_dims)))
        if ctx.needs_input_grad[0]:
            packed, low, high, rstd, weight = ctx.saved_tensors
            dims = tuple(range(-ctx.num_dims, 0))
            normal = decode_4bit(packed, ctx.shape, low, high, grad.dtype)
            scaled = grad if weight is None else grad * weight
            on_x = scaled - scaled.mean(dim=dims, keepdim=True) - normal * (scaled * normal).mean(dim=dims, keepdim=True)
            on_x = (on_x * rstd).to(ctx.dtype)
        return on_x, None, None, on_bias, None


class _ShiftOnlyNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(scale if weight is None else scale * weight)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        on_x = on_bias = None
        if ctx.needs_input_grad[0]:
            on_x = grad * scale.to(grad.dtype).view(1, -1, *[1] * (grad.ndim - 2))
        if ctx.needs_input_grad[4]:
            on_bias = grad.sum(dim=(0, *range(2, grad.ndim)))
        return on_x, None, None, None, on_bias, None

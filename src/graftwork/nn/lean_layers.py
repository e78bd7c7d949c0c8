"""Softmax, attention and frozen convolutions that compute the same and hold less for the backward pass.

Paper of the coded softmax: S2A, https://arxiv.org/abs/2503.08154. PyTorch holds the input of a convolution even where its weight is
frozen; of a linear layer it does not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from graftwork.math.packed_codes import decode_4bit, encode_4bit, pack_bits, unpack_bits

__all__ = ["coded_attention", "coded_softmax", "frozen_convolution"]


def coded_softmax(x: Tensor, dim: int | None = None, **keywords: Any) -> Tensor:
    """Return ``softmax(x)``; the probabilities are held in 4 bits over the range from 0 to the highest of each row.

    For softmax over the last dimension; for others NotImplemented is returned.
    """
    if dim is None or dim % x.ndim != x.ndim - 1 or keywords.get("dtype") is not None:
        return NotImplemented
    return _CodedSoftmax.apply(x)  # type: ignore[no-any-return]


def coded_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return ``F.scaled_dot_product_attention(...)``; held are queries, keys and values as they are, probabilities in 4 bits, and in
    1 bit which of them were dropped.

    Causal and grouped attention, and masks that learn, are left to PyTorch: NotImplemented is returned.
    """
    if is_causal or enable_gqa or (attn_mask is not None and attn_mask.requires_grad):
        return NotImplemented
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    return _CodedAttention.apply(query, key, value, attn_mask, dropout_p, factor)  # type: ignore[no-any-return]


def frozen_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return ``F.conv2d(...)`` without holding ``x``; for a weight that learns, or padding by a word, NotImplemented is returned."""
    if weight.requires_grad or isinstance(padding, str) or x.ndim != 4:
        return NotImplemented
    return _FrozenConvolution.apply(x, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups)  # type: ignore[no-any-return]


class _CodedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        output = torch.softmax(x, dim=-1)
        highest = output.amax(dim=-1, keepdim=True)
        ctx.save_for_backward(encode_4bit(output, 0.0, highest), highest)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        packed, highest = ctx.saved_tensors
        return _through_softmax(grad, decode_4bit(packed, grad.shape, 0.0, highest, grad.dtype))


class _CodedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, factor: float
    ) -> Tensor:
        scores = (query @ key.transpose(-2, -1)) * factor
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        shares = torch.softmax(scores, dim=-1)
        highest = shares.amax(dim=-1, keepdim=True)
        kept = torch.rand_like(shares) >= dropout if dropout else None
        ctx.factor, ctx.dropout, ctx.shape = factor, dropout, shares.shape
        packed = encode_4bit(shares, 0.0, highest)
        ctx.save_for_backward(query, key, value, packed, highest, None if kept is None else pack_bits(kept))
        if kept is not None:
            shares = shares * kept / (1.0 - dropout)
        return shares @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, packed, highest, bits = ctx.saved_tensors
        shares = decode_4bit(packed, ctx.shape, 0.0, highest, grad.dtype)
        on_shares = grad @ value.transpose(-2, -1)
        used = shares
        if bits is not None:
            kept = unpack_bits(bits, ctx.shape).to(grad.dtype) / (1.0 - ctx.dropout)
            used, on_shares = shares * kept, on_shares * kept
        on_value = used.transpose(-2, -1) @ grad
        on_scores = _through_softmax(on_shares, shares) * ctx.factor
        return on_scores @ key, on_scores.transpose(-2, -1) @ query, on_value, None, None, None


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        ctx.settings = (stride, padding, dilation, groups)
        ctx.like = (x.shape, x.dtype, x.is_contiguous(memory_format=torch.channels_last))
        ctx.save_for_backward(weight)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        shape, dtype, is_channels_last = ctx.like
        on_x = on_bias = None
        if ctx.needs_input_grad[0]:
            # The gradient with respect to the input needs its shape alone: one number stands for all.
            blank = grad.new_zeros(1).expand(shape)
            # Under autocast the gradient is in half precision and the weight is not.
            on_x, _, _ = torch.ops.aten.convolution_backward(
                grad, blank, weight.to(grad.dtype), None, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
            )
            on_x = on_x.to(dtype)
            if is_channels_last:
                on_x = on_x.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[2]:
            on_bias = grad.sum(dim=(0, 2, 3))
        return on_x, None, on_bias, None, None, None, None


def _through_softmax(grad: Tensor, shares: Tensor) -> Tensor:
    return shares * (grad - (grad * shares).sum(dim=-1, keepdim=True))


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))

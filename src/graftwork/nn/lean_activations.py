"""Activation functions that compute the same and hold a few bits a value for the backward pass.

Papers: Jin et al., "S2A: A Unified Framework for Parameter and Memory Efficient Transfer Learning", 2025,
https://arxiv.org/abs/2503.08154: the derivative ``g'(x)`` in 4 bits; Chiang et al., "MobileTL: On-device Transfer Learning with
Inverted Residual Blocks", AAAI 2023, https://arxiv.org/abs/2212.03246: a mask of 1 bit in place of the derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from graftwork.math.packed_codes import decode_4bit, encode_4bit, pack_bits, unpack_bits

__all__ = [
    "CURVES",
    "MASKS",
    "STEPS",
    "Curve",
    "coded_activation",
    "coded_input_activation",
    "masked_activation",
    "packed_dropout",
]

Function = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Curve:
    """A smooth activation function's derivative and where it lies."""

    derivative: Callable[..., Tensor]
    """From the input and the function's own keywords."""
    low: float
    high: float


def _gelu_slope(x: Tensor, approximate: str = "none") -> Tensor:
    return torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate=approximate)


def _silu_slope(x: Tensor, inplace: bool = False) -> Tensor:
    return torch.ops.aten.silu_backward(torch.ones_like(x), x)


def _hardswish_slope(x: Tensor, inplace: bool = False) -> Tensor:
    return torch.ops.aten.hardswish_backward(torch.ones_like(x), x)


def _tanh_slope(x: Tensor) -> Tensor:
    return 1.0 - x.tanh().square_()


def _sigmoid_slope(x: Tensor) -> Tensor:
    y = x.sigmoid()
    return y * (1.0 - y)


_TANH, _SIGMOID = Curve(_tanh_slope, 0.0, 1.0), Curve(_sigmoid_slope, 0.0, 0.25)
# The derivatives of GELU and SiLU leave [0, 1] on both sides, by the same amount.
_GELU, _SILU, _HARDSWISH = (
    Curve(_gelu_slope, -0.1292, 1.1292),
    Curve(_silu_slope, -0.0999, 1.0999),
    Curve(_hardswish_slope, -0.5, 1.5),
)
CURVES: dict[Function, Curve] = {
    F.gelu: _GELU,
    F.silu: _SILU,
    F.hardswish: _HARDSWISH,
    **dict.fromkeys((torch.tanh, Tensor.tanh, F.tanh), _TANH),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, F.sigmoid), _SIGMOID),
}
"""Smooth functions by what is called."""


def _positive(x: Tensor, inplace: bool = False) -> Tensor:
    return x > 0


def _inside_6(x: Tensor, inplace: bool = False) -> Tensor:
    return (x > 0) & (x < 6)


def _inside(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    return (x > min_val) & (x < max_val)


MASKS: dict[Function, Callable[..., Tensor]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _positive),
    F.relu6: _inside_6,
    F.hardtanh: _inside,
}
"""Functions whose derivative is 0 or 1, by what is called: where it is 1."""
STEPS: dict[Function, Callable[..., Tensor]] = {**MASKS, F.hardswish: _positive, F.silu: _positive, F.gelu: lambda x, **_: x > 0}
"""With smooth functions, whose derivative is taken for that of a step."""


def coded_activation(function: Function, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """Return ``function(x)``; of a smooth function the derivative is held in 4 bits, of one with corners in 1 bit.

    Args:
        function: A key of :data:`CURVES` or :data:`MASKS`.
        x: Its input; in-place variants give a new tensor.
        arguments: Further arguments of the function.
        keywords: Its keywords.
    """
    if function in MASKS:
        return masked_activation(function, x, *arguments, **keywords)
    return _Coded.apply(x, function, arguments, _plain(keywords))  # type: ignore[no-any-return]


def coded_input_activation(function: Function, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """Return ``function(x)``; the input is held in 4 bits over the tensor's range, and the derivative taken there.

    A baseline: codes go to large inputs, where the derivative hardly changes.
    """
    if function in MASKS:
        return masked_activation(function, x, *arguments, **keywords)
    return _CodedInput.apply(x, function, arguments, _plain(keywords))  # type: ignore[no-any-return]


def masked_activation(function: Function, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """Return ``function(x)``; its derivative is taken to be a step, which is held in 1 bit: exact for ReLU, ReLU6 and hard tanh.

    Args:
        function: A key of :data:`MASKS`, or hard-swish, SiLU or GELU, whose derivative is taken for ``1[x > 0]``.
        x: Its input; in-place variants give a new tensor.
        arguments: Further arguments of the function.
        keywords: Its keywords.
    """
    return _Masked.apply(x, function, arguments, _plain(keywords))  # type: ignore[no-any-return]


def packed_dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return ``F.dropout(...)``, exact; what is kept is held in 1 bit a value, where PyTorch holds a float on CPUs.

    Other values are dropped than PyTorch would drop with the same seed. Outside of training NotImplemented is returned.
    """
    if not training or not 0.0 < p < 1.0:
        return NotImplemented
    return _Dropped.apply(x, p)  # type: ignore[no-any-return]


def _plain(keywords: dict[str, Any]) -> dict[str, Any]:
    # The input may be held by another function, and writing into it would count as a change.
    return {**keywords, "inplace": False} if "inplace" in keywords else keywords


class _Coded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        curve = CURVES[function]
        ctx.curve, ctx.shape = curve, x.shape
        ctx.save_for_backward(encode_4bit(curve.derivative(x, *arguments, **keywords), curve.low, curve.high))
        return function(x, *arguments, **keywords)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return grad * decode_4bit(packed, ctx.shape, ctx.curve.low, ctx.curve.high, grad.dtype), None, None, None


class _CodedInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        low, high = x.amin(), x.amax()
        ctx.slope = lambda values: CURVES[function].derivative(values, *arguments, **keywords)
        ctx.shape = x.shape
        ctx.save_for_backward(encode_4bit(x, low, high), low, high)
        return function(x, *arguments, **keywords)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packed, low, high = ctx.saved_tensors
        return grad * ctx.slope(decode_4bit(packed, ctx.shape, low, high, grad.dtype)), None, None, None


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        ctx.shape = x.shape
        ctx.save_for_backward(pack_bits(STEPS[function](x, *arguments, **keywords)))
        return function(x, *arguments, **keywords)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return grad * unpack_bits(packed, ctx.shape), None, None, None


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept = torch.rand_like(x) >= p
        ctx.shape, ctx.factor = x.shape, 1.0 / (1.0 - p)
        ctx.save_for_backward(pack_bits(kept))
        return x * kept * ctx.factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return grad * unpack_bits(packed, ctx.shape) * ctx.factor, None

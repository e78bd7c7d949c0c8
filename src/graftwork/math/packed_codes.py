"""Tensors in few bits: codes of 4 bits, two a byte, and masks of 1 bit, eight a byte.

A code is ``round(15 * (value - low) / (high - low))``, an affine quantiser whose range is that of a function or of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LEVELS", "decode_4bit", "encode_4bit", "pack_bits", "row_ranges", "unpack_bits"]

LEVELS = 15
"""Steps between the lowest and the highest value of a code of 4 bits."""
_BITS = 8


def encode_4bit(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Return codes of ``values`` in flat order, ``uint8 [ceil(n / 2)]``; values out of range get the nearest code.

    Args:
        values: Any shape, ``n`` numbers.
        low: Value of code 0: a number, or a tensor that broadcasts with ``values`` (one a row, say).
        high: Value of code 15, likewise. Where it equals ``low``, all codes are 0.
    """
    step = (high - low) / LEVELS
    scaled = (values - low) / (step.clamp(min=torch.finfo(step.dtype).tiny) if isinstance(step, Tensor) else step)
    codes = scaled.round_().clamp_(0, LEVELS).to(torch.uint8).flatten()
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    pairs = codes.view(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def decode_4bit(packed: Tensor, shape: torch.Size, low: float | Tensor, high: float | Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values that codes stand for.

    Args:
        packed: What :func:`encode_4bit` returned.
        shape: Shape of the values.
        low: As they were encoded.
        high: As they were encoded.
        dtype: Of the values.
    """
    codes = torch.stack([packed & LEVELS, packed >> 4], dim=1).flatten()[: shape.numel()].view(shape)
    return (codes * ((high - low) / LEVELS) + low).to(dtype)


def row_ranges(values: Tensor, num_dims: int = 1) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each row, with the dimensions of a row kept at size 1.

    Args:
        values: Any shape.
        num_dims: How many of the last dimensions make a row.
    """
    dims = tuple(range(-num_dims, 0))
    return values.amin(dim=dims, keepdim=True), values.amax(dim=dims, keepdim=True)


def pack_bits(mask: Tensor) -> Tensor:
    """Return a bool tensor in flat order as ``uint8 [ceil(n / 8)]``."""
    flat = mask.flatten().view(torch.uint8)
    short = -flat.numel() % _BITS
    if short:
        flat = torch.cat([flat, flat.new_zeros(short)])
    columns = flat.view(-1, _BITS)
    packed = columns[:, 0].clone()
    for bit in range(1, _BITS):
        packed |= columns[:, bit] << bit
    return packed


def unpack_bits(packed: Tensor, shape: torch.Size) -> Tensor:
    """Return the bool tensor that :func:`pack_bits` was given, of this shape."""
    bits = torch.stack([(packed >> bit) & 1 for bit in range(_BITS)], dim=1)
    return bits.flatten()[: shape.numel()].view(torch.bool).view(shape)

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.math.packed_codes import LEVELS, decode_4bit, encode_4bit, pack_bits, row_ranges, unpack_bits


def test_codes_are_the_nearest_of_16_levels_two_a_byte() -> None:
    values = torch.tensor([0.0, 0.49, 7.6, 15.0, 99.0])  # the last one is out of range
    packed = encode_4bit(values, 0.0, 15.0)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [0 | 0 << 4, 8 | 15 << 4, 15]
    assert decode_4bit(packed, values.shape, 0.0, 15.0, torch.float32).tolist() == [0.0, 0.0, 8.0, 15.0, 15.0]


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_what_is_decoded_is_within_half_a_step_of_each_rows_range(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape)
    low, high = row_ranges(values)
    packed = encode_4bit(values, low, high)
    assert packed.numel() == -(-values.numel() // 2)
    found = decode_4bit(packed, values.shape, low, high, values.dtype)
    assert bool(((found - values).abs() <= (high - low) / LEVELS / 2 + 1e-6).all())
    # NumPy's own quantiser.
    rows, lows, highs = values.numpy(), low.numpy(), high.numpy()
    expected = lows + np.round((rows - lows) / (highs - lows) * 15) * (highs - lows) / 15
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_equal_values_keeps_them() -> None:
    values = torch.full((2, 4), 3.5)
    low, high = row_ranges(values)
    assert torch.equal(decode_4bit(encode_4bit(values, low, high), values.shape, low, high, values.dtype), values)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_bits_are_kept_eight_a_byte(count: int) -> None:
    mask = torch.rand(count, generator=torch.Generator().manual_seed(count)) > 0.5
    packed = pack_bits(mask)
    assert packed.numel() == -(-count // 8)
    np.testing.assert_array_equal(packed.numpy(), np.packbits(mask.numpy(), bitorder="little"))
    assert torch.equal(unpack_bits(packed, mask.shape), mask)


def test_the_order_is_that_of_the_dimensions_whatever_memory_looks_like() -> None:
    mask = (torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5) % 3 == 0).contiguous(memory_format=torch.channels_last)
    assert torch.equal(unpack_bits(pack_bits(mask), mask.shape), mask)

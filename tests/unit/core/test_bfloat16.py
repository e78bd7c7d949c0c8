"""bfloat16 that is widened slice by slice."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.bfloat16 import WidenedTensor, narrow_to_bfloat16, widen_bfloat16

BITS = narrow_to_bfloat16(np.random.default_rng(0).normal(size=(4, 6)))
WIDE = widen_bfloat16(BITS)
TENSOR = WidenedTensor(BITS)


def test_it_looks_like_the_widened_array() -> None:
    assert (TENSOR.shape, TENSOR.size, TENSOR.ndim, len(TENSOR), TENSOR.dtype) == (WIDE.shape, WIDE.size, 2, 4, WIDE.dtype)
    np.testing.assert_array_equal(np.asarray(TENSOR), WIDE)
    np.testing.assert_array_equal(TENSOR.astype(np.float64), WIDE.astype(np.float64))
    np.testing.assert_array_equal(np.array(TENSOR, dtype=np.float64), WIDE)


@pytest.mark.parametrize("index", [slice(1, 3), (slice(None), slice(0, 6, 2)), 2, (1, 2), Ellipsis, np.array([0, 3]), WIDE > 0])
def test_indices_give_real_arrays(index: object) -> None:
    found = TENSOR[index]
    assert not isinstance(found, WidenedTensor)
    np.testing.assert_array_equal(found, WIDE[index])  # type: ignore[index]
    assert found.dtype == np.float32


def test_reshaping_widens_nothing() -> None:
    flat = TENSOR.reshape(-1)
    assert isinstance(flat, WidenedTensor)
    assert np.shares_memory(flat.bits, BITS)
    np.testing.assert_array_equal(flat[3:9], WIDE.reshape(-1)[3:9])
    np.testing.assert_array_equal(WidenedTensor(np.array(BITS[0, 0]))[...], WIDE[0, 0])


def test_operators_and_functions_of_numpy_take_it() -> None:
    other = np.ones((4, 6), np.float32)
    np.testing.assert_array_equal(TENSOR - other, WIDE - other)
    np.testing.assert_array_equal(other * TENSOR, WIDE)
    np.testing.assert_array_equal(0.5 * TENSOR + TENSOR, 0.5 * WIDE + WIDE)
    np.testing.assert_array_equal(np.stack([TENSOR, TENSOR]), np.stack([WIDE, WIDE]))
    np.testing.assert_array_equal(np.mean([TENSOR, other], axis=0), np.mean([WIDE, other], axis=0))
    np.testing.assert_allclose(np.linalg.norm(TENSOR), np.linalg.norm(WIDE))
    np.testing.assert_array_equal(np.where(TENSOR > 0, TENSOR, 0), np.where(WIDE > 0, WIDE, 0))
    assert np.result_type(TENSOR.dtype, np.float32) == np.float32

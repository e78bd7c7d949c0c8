from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.math import gramian as module
from graftwork.math.gramian import combine_rows_, gramian, square_root


def test_value_by_hand() -> None:
    assert gramian(torch.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist() == [[25.0, 3.0], [3.0, 1.0]]


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 1000), st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_plain_product_across_chunks(rows: int, columns: int, seed: int, dtype: torch.dtype) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before, module.CHUNK = module.CHUNK, 7
    try:
        found = gramian(matrix)
    finally:
        module.CHUNK = before
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, matrix.double() @ matrix.double().T, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.T)


def test_half_precision_is_widened() -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.bfloat16)
    assert gramian(matrix).tolist() == [[5.0, -1.5], [-1.5, 1.25]]


@pytest.mark.parametrize("rows", [2, 5])
def test_long_float32_rows_keep_their_digits(rows: int) -> None:
    matrix = torch.rand(rows, 2_000_000, generator=torch.Generator().manual_seed(0))
    exact = matrix.double() @ matrix.double().T
    torch.testing.assert_close(gramian(matrix), exact, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("rows", [2, 6])
def test_a_small_row_is_not_hidden_by_the_rounding_errors_of_a_large_one(rows: int) -> None:
    """At right angles up to rounding, lengths 1e4 and 1e-4: in float32 the inner product would be off by a hundred times the
    small square."""
    matrix = torch.zeros(rows, 4000)
    matrix[0] = 1e4 * torch.sin(torch.arange(4000.0))
    matrix[1:] = 1e-4 * torch.cos(torch.arange(4000.0))
    exact = matrix.double() @ matrix.double().T
    torch.testing.assert_close(gramian(matrix), exact, rtol=1e-9, atol=0.0)


def test_short_rows_do_not_underflow() -> None:
    matrix = torch.tensor([[1e-30, 0.0], [1e-30, 1e-30]])
    assert gramian(matrix)[1, 1].item() == pytest.approx(2e-60)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 1000))
def test_combination_in_place(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, weights = torch.randn(rows, columns, generator=generator), torch.randn(rows, generator=generator)
    expected = weights @ matrix
    found = combine_rows_(matrix, weights)
    torch.testing.assert_close(found, expected)
    assert found.data_ptr() == matrix.data_ptr()


def test_square_root_of_a_singular_matrix() -> None:
    rows = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.0, 1.0]])
    root = square_root(rows @ rows.T)
    torch.testing.assert_close(root @ root.T, rows @ rows.T, atol=1e-5, rtol=1e-5)

"""Dropout of shares of a batch, beside dropout of the whole batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.training.whole_batch_draws import WholeBatchDraws

SITES: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda rows: F.dropout(rows.flatten(1), 0.3, True),
    "tokens": lambda rows: F.dropout(rows, 0.3, True),
    "flattened tokens": lambda rows: F.dropout(rows.flatten(0, 1), 0.3, True),
    "transposed": lambda rows: F.dropout(rows.transpose(1, 2), 0.3, True),
    "channels": lambda rows: F.dropout1d(rows.transpose(1, 2), 0.3, True),
    "layer in place": lambda rows: nn.Dropout(0.3, inplace=True)(rows.clone()),
    "switched off": lambda rows: F.dropout(rows, 0.3, False),
    "weights": lambda rows: rows @ F.dropout(torch.ones(3, 3), 0.5, True),
}


@pytest.mark.parametrize("name", SITES)
@settings(max_examples=10, deadline=None)
@given(num_rows=st.integers(4, 23).filter(lambda number: number % 3), size=st.integers(2, 4))
def test_shares_get_the_masks_of_the_whole_batch(name: str, num_rows: int, size: int) -> None:
    site, rows = SITES[name], torch.randn(num_rows, 5, 3, generator=torch.Generator().manual_seed(1))

    def drawn(share: slice | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(2)
        if share is None:
            return site(rows), torch.rand(1)
        own = rows[share].clone()
        with WholeBatchDraws(len(own), num_rows, share, set()):
            made = site(own)
        return made, torch.rand(1)

    whole, following = drawn(None)
    for rank in range(size):
        share = slice(rank, None, size)
        # Weights of three rows would pass for rows of a share of three, one or two: those are drawn as rows are.
        if name == "weights" and 3 % len(rows[share]) == 0:
            continue
        mine, next_draw = drawn(share)
        wanted = whole.unflatten(0, (num_rows, -1))[share].flatten(0, 1)
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6 if name == "weights" else 0)
        assert torch.equal(next_draw, following), "every process goes on at the same place of the stream"


def test_gradients_pass_through_the_mask() -> None:
    rows = torch.ones(4, 3, requires_grad=True)
    with WholeBatchDraws(4, 8, slice(0, None, 2), set()):
        F.dropout(rows, 0.5, True).sum().backward()
    assert rows.grad is not None
    assert set(rows.grad.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("randn_like", torch.randn_like),
        ("bernoulli_", lambda rows: torch.empty_like(rows).bernoulli_(0.5)),
        ("scaled_dot_product_attention", lambda rows: F.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.1)),
    ],
)
def test_other_draws_are_named_once(name: str, draw: Callable[[Tensor], Tensor]) -> None:
    warned: set[str] = set()
    rows = torch.ones(4, 2, 3)
    with (
        WholeBatchDraws(4, 8, slice(0, None, 2), warned),
        pytest.warns(RuntimeWarning, match=f"`{name}`.*not those of one process"),
    ):
        draw(rows)
    with WholeBatchDraws(4, 8, slice(0, None, 2), warned), warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(rows)


def test_draws_without_rows_are_not_warned_of() -> None:
    warned: set[str] = set()
    with WholeBatchDraws(4, 8, slice(0, None, 2), warned):
        torch.rand(3)
        torch.randn(())
        F.scaled_dot_product_attention(torch.ones(4, 2, 3), torch.ones(4, 2, 3), torch.ones(4, 2, 3))
    assert not warned

"""Best approximations of low rank are those of NumPy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.methods.tuning.peft_low_rank import Truncation, factors, summed
from graftwork.nn.delta_parts import LowRank


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("rank", [1, 3, 99])
def test_dense_changes(shape: tuple[int, ...], rank: int) -> None:
    change = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    part, lost, whole = factors("w.weight", change, rank)
    out, values, into = np.linalg.svd(change.flatten(1).double().numpy(), full_matrices=False)
    expected = (out[:, :rank] * values[:rank]) @ into[:rank]
    np.testing.assert_allclose(part.expand(torch.Size(shape)).flatten(1), expected, rtol=1e-5, atol=1e-5)
    assert lost == pytest.approx(np.sum(values[rank:] ** 2), abs=1e-9)
    assert whole == pytest.approx(np.sum(values**2))
    assert len(part.down) == min(rank, len(values))


def test_changes_of_less_rank_and_of_none() -> None:
    thin = torch.outer(torch.arange(5.0), torch.ones(7))
    part, lost, _ = factors("w.weight", thin, 4)
    assert len(part.down) == 1
    assert lost == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(part.expand(thin.shape), thin, rtol=1e-5, atol=1e-5)
    nothing, _, whole = factors("w.weight", torch.zeros(3, 4), 2)
    assert whole == 0.0
    assert nothing.expand(torch.Size([3, 4])).abs().max() == 0.0


def test_sums_of_factors_are_exact_and_truncated_without_their_product() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [LowRank(torch.randn(r, 8, generator=generator), torch.randn(6, r, generator=generator), 0.5) for r in (2, 3)]
    total = summed(parts, [2.0, -1.0])
    shape = torch.Size([6, 8])
    torch.testing.assert_close(total.expand(shape), 2.0 * parts[0].expand(shape) - parts[1].expand(shape))
    found = Truncation(2)
    found.add("w.weight", total)
    out, values, into = np.linalg.svd(total.expand(shape).double().numpy(), full_matrices=False)
    np.testing.assert_allclose(found.parts["w.weight"].expand(shape), (out[:, :2] * values[:2]) @ into[:2], rtol=1e-4, atol=1e-5)
    share = np.sqrt(np.sum(values[2:] ** 2) / np.sum(values**2))
    assert f"rank 2 leaves a relative error of {share:.2%} of the merged change" in found.note()
    exact = Truncation(5)
    exact.add("w.weight", total)
    assert exact.note() == ""

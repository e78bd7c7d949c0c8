"""Scaling by the context is undone exactly, and sampling rates are told apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.nn.series_scale import RATES, context_scale, interval_codes, scaled_by, unscaled_by


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_unscaling_is_the_inverse(shift: float, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    series = shift + size * torch.randn(3, 12, 2, generator=generator, dtype=torch.float64)
    mask = torch.ones_like(series, dtype=torch.bool)
    center, scale = context_scale(series, mask)
    scaled = scaled_by(series, mask, center, scale)
    torch.testing.assert_close(unscaled_by(scaled.transpose(1, 2), center, scale), series.transpose(1, 2))
    torch.testing.assert_close(scaled.mean(dim=1), torch.zeros(3, 2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_unknown_steps_do_not_count() -> None:
    series = torch.tensor([[[1.0], [99.0], [3.0]]])
    mask = torch.tensor([[[True], [False], [True]]])
    center, scale = context_scale(series, mask)
    assert center.item() == 2.0
    assert scale.item() == pytest.approx(1.0, abs=1e-4)
    assert scaled_by(series, mask, center, scale)[0, 1, 0] == 0.0
    nothing = context_scale(series, torch.zeros_like(mask))
    assert nothing[0].item() == 0.0
    assert nothing[1].item() == pytest.approx(1e-5**0.5)


def test_a_series_moved_and_stretched_is_scaled_to_the_same() -> None:
    series = torch.randn(2, 16, 3, dtype=torch.float64)
    mask = torch.rand(2, 16, 3) > 0.3
    plain = scaled_by(series, mask, *context_scale(series, mask))
    moved = 7.0 + 5.0 * series
    torch.testing.assert_close(scaled_by(moved, mask, *context_scale(moved, mask)), plain, rtol=1e-4, atol=1e-4)


def test_every_rate_has_its_code() -> None:
    times = torch.arange(16) * torch.tensor(RATES)[:, None]
    assert interval_codes(times).tolist() == list(range(1, len(RATES) + 1))
    assert interval_codes(times * 1.2).tolist() == interval_codes(times).tolist()
    assert interval_codes(torch.zeros(2, 16)).tolist() == [0, 0]
    padded = torch.cat([torch.zeros(1, 6), 3600.0 * torch.arange(10)[None]], dim=1)
    assert interval_codes(padded).item() == 1 + RATES.index(3600.0), "what is filled up in front does not count"

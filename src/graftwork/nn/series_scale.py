"""Scaling of a series by its own context: each channel of each row by mean and deviation of its known steps, inverted on what is
predicted.

Paper: Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against Distribution Shift", ICLR 2022,
https://openreview.net/forum?id=cGDAkQo1C0p. The affine part that is learned there is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RATES", "context_scale", "interval_codes", "scaled_by", "unscaled_by"]

EPSILON = 1e-5
"""Added to the variance: a channel that does not move within its context is divided by about 0.003."""
RATES = (
    1.0, 10.0, 60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 604800.0, 2629800.0,
    7889400.0, 31557600.0,
)  # fmt: skip
"""Seconds between steps that have a code of their own: from one second over 10 minutes, an hour, a day, a month to a year."""


def context_scale(series: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the known steps, ``[B, C]`` each, from ``[B, T, C]``; 0 and about 0.003 where nothing is
    known."""
    known = mask.to(series.dtype)
    count = known.sum(dim=1).clamp(min=1.0)
    center = (series * known).sum(dim=1) / count
    # From the differences, in a second pass: the mean of squares loses its digits where values are large and move little.
    variance = ((series - center.unsqueeze(1)).square() * known).sum(dim=1) / count
    return center, (variance + EPSILON).sqrt()


def scaled_by(series: Tensor, mask: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return ``[B, T, C]`` with mean 0 and deviation 1 over the known steps of each channel; 0 where unknown."""
    return (series - center.unsqueeze(1)) / scale.unsqueeze(1) * mask.to(series.dtype)


def unscaled_by(forecast: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return forecasts ``[B, C, H]`` in the units of the context: the inverse of :func:`scaled_by`."""
    return forecast * scale.unsqueeze(-1) + center.unsqueeze(-1)


def interval_codes(times: Tensor) -> Tensor:
    """Return a code of the time between the last steps, int64 ``[B]``: 1 + the nearest of :data:`RATES` by ratio, 0 if unknown.

    Args:
        times: Seconds, rising, ``[B, T]``; the later half of the steps is looked at.
    """
    half = times.shape[1] // 2
    # A mean over half of the steps: single steps may be missing or irregular.
    interval = (times[:, -1] - times[:, half]) / max(times.shape[1] - 1 - half, 1)
    rates = torch.tensor(RATES, dtype=times.dtype, device=times.device)
    # Geometric means lie halfway by ratio.
    bounds = (rates[1:] * rates[:-1]).sqrt()
    code = 1 + (interval.unsqueeze(1) >= bounds).sum(dim=1)
    return torch.where(interval > 0, code, torch.zeros_like(code))

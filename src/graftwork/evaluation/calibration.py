"""Calibration: whether what is given a probability of 70 % happens in 70 % of the cases.

Expected calibration error with ten bins of equal width (Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). On few rows it is far from zero even if all
probabilities are right, so what chance alone would show is given beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration", "rounded"]

Floats = NDArray[np.float64]

NUM_BINS = 10
_Z = 1.959964
_DRAWS = 4_000


def rounded(value: float) -> float:
    """Return a number with four digits, which is as much as a report shows.

    Example:
        >>> rounded(0.123456), rounded(98765.4)
        (0.1235, 98770.0)
    """
    return float(f"{value:.4g}")


def calibration(probability: Floats, happened: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return the calibration of probabilities; None without a row.

    Args:
        probability: What was said, ``[N]``, in [0, 1].
        happened: Whether it was so, ``[N]``.

    Returns:
        ``rows``; ``error``, the expected calibration error in [0, 1], lower is better; ``chance``, the error that probabilities which
        are all right stay below in 95 % of the cases; ``bins`` with ``probability`` (mean of what was said), ``share`` (how often it
        happened), ``low`` and ``high`` (95 % Wilson interval of the share) and ``rows``.

    Example:
        >>> found = calibration(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, False, False]))
        >>> found["error"], [one["share"] for one in found["bins"]]
        (0.1, [0.0, 1.0])
    """
    if not len(probability):
        return None
    said = np.clip(np.asarray(probability, dtype=np.float64), 0.0, 1.0)
    place = np.minimum((said * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    rows = np.bincount(place, minlength=NUM_BINS)
    used = np.flatnonzero(rows)
    number = rows[used].astype(np.float64)
    mean = np.bincount(place, weights=said, minlength=NUM_BINS)[used] / number
    share = np.bincount(place, weights=np.asarray(happened, dtype=np.float64), minlength=NUM_BINS)[used] / number
    spread = np.sqrt(np.bincount(place, weights=said * (1.0 - said), minlength=NUM_BINS)[used])
    low, high = _wilson(share, number)
    # The sum of a bin is nearly normal; bins whose probabilities are near 0 or 1 hardly add to the error.
    draws = np.abs(np.random.default_rng(0).standard_normal((_DRAWS, len(used))) * spread).sum(axis=1) / len(said)
    return {
        "rows": len(said),
        "error": rounded(float((number * np.abs(share - mean)).sum() / len(said))),
        "chance": rounded(float(np.quantile(draws, 0.95))),
        "bins": [
            {"probability": rounded(a), "share": rounded(b), "low": rounded(c), "high": rounded(d), "rows": int(e)}
            for a, b, c, d, e in zip(mean.tolist(), share.tolist(), low.tolist(), high.tolist(), number.tolist(), strict=True)
        ],
    }


def _wilson(share: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of shares; unlike the normal one it stays within [0, 1]."""
    center = (share + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z / (1 + _Z**2 / rows) * np.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    # Exactly none or all at the ends: rounding leaves a trace of more.
    return np.where(share == 0, 0.0, np.maximum(center - half, 0.0)), np.where(share == 1, 1.0, np.minimum(center + half, 1.0))

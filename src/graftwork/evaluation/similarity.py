"""How much two pictures look alike: the structural similarity SSIM, and the signal-to-noise ratio PSNR.

Paper: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions on Image
Processing 13, 2004, with windows of equal weights and the sample covariance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["psnr", "ssim"]

Array = NDArray[Any]


def ssim(first: Array, second: Array, *, window: int = 7, data_range: float = 1.0) -> NDArray[np.float64]:
    """Return the structural similarity of pairs of pictures, float64 ``[N]`` in [-1, 1], 1 for equal ones.

    It is the mean over channels and over all windows that lie wholly inside the picture.

    Args:
        first: ``[N, C, H, W]``.
        second: Likewise.
        window: Side of the window in pixels, odd, at least 3.
        data_range: Largest minus smallest possible value.

    Raises:
        DataError: If the shapes differ, or the window is even or does not fit.
    """
    one, two = _pair(first, second)
    if window < 3 or window % 2 == 0 or window > min(one.shape[2:]):
        raise DataError(
            f"`window` must be odd, at least 3 and at most the picture's side of {min(one.shape[2:])} pixels; got {window}."
        )
    mean_one, mean_two = _window_means(one, window), _window_means(two, window)
    # n / (n - 1), the sample covariance.
    unbiased = window**2 / (window**2 - 1)
    # E x^2 - (E x)^2; float64 keeps what the difference leaves.
    var_one = unbiased * (_window_means(one * one, window) - mean_one**2)
    var_two = unbiased * (_window_means(two * two, window) - mean_two**2)
    both = unbiased * (_window_means(one * two, window) - mean_one * mean_two)
    # The paper's constants K1 = 0.01 and K2 = 0.03 keep dark and flat windows from dividing by 0.
    dark, flat = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    light = (2 * mean_one * mean_two + dark) / (mean_one**2 + mean_two**2 + dark)
    structure = (2 * both + flat) / (var_one + var_two + flat)
    return np.asarray((light * structure).mean(axis=(1, 2, 3)))


def psnr(first: Array, second: Array, *, data_range: float = 1.0) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of pairs of pictures in decibels, float64 ``[N]``; infinite for equal ones.

    Args:
        first: ``[N, C, H, W]``.
        second: Likewise.
        data_range: Largest minus smallest possible value.

    Raises:
        DataError: If the shapes differ.
    """
    one, two = _pair(first, second)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(data_range**2 / ((one - two) ** 2).mean(axis=(1, 2, 3))))


def _pair(first: Array, second: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 4 or one.shape != two.shape:
        raise DataError(f"Pictures are compared as two arrays [N, C, H, W] of one shape; got {one.shape} and {two.shape}.")
    return one, two


def _window_means(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of each window that lies wholly inside, ``[N, C, H - window + 1, W - window + 1]``."""
    # Rows first, then columns: a mean over a square window is a mean of means.
    inside = np.lib.stride_tricks.sliding_window_view(values, window, axis=2).mean(axis=-1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(inside, window, axis=3).mean(axis=-1))

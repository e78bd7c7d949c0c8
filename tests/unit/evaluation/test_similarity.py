from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import DataError
from graftwork.evaluation.similarity import psnr, ssim

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.uniform(0, 1, (4, 3, 12, 15))
SECOND = np.clip(FIRST + 0.2 * RANDOM.standard_normal(FIRST.shape), 0, 1)


def slow_ssim(first: np.ndarray, second: np.ndarray, window: int, data_range: float) -> float:
    """One channel, window by window, as the paper writes it."""
    values = []
    for down in range(first.shape[0] - window + 1):
        for right in range(first.shape[1] - window + 1):
            x = first[down : down + window, right : right + window].ravel()
            y = second[down : down + window, right : right + window].ravel()
            c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
            covariance = np.cov(x, y)
            light = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
            values.append(light * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2))
    return float(np.mean(values))


@pytest.mark.parametrize(("window", "data_range"), [(7, 1.0), (3, 2.0)])
def test_equals_the_sum_over_windows(window: int, data_range: float) -> None:
    found = ssim(FIRST, SECOND, window=window, data_range=data_range)
    wanted = [
        np.mean([slow_ssim(one[c], two[c], window, data_range) for c in range(3)]) for one, two in zip(FIRST, SECOND, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_equals_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    pairs = list(zip(FIRST, SECOND, strict=True))
    wanted = [metrics.structural_similarity(one, two, channel_axis=0, data_range=1.0) for one, two in pairs]
    np.testing.assert_allclose(ssim(FIRST, SECOND), wanted, rtol=1e-9)
    wanted = [metrics.peak_signal_noise_ratio(one, two, data_range=1.0) for one, two in pairs]
    np.testing.assert_allclose(psnr(FIRST, SECOND), wanted, rtol=1e-9)


def test_equal_pictures_are_alike_and_blurred_ones_less() -> None:
    np.testing.assert_allclose(ssim(FIRST, FIRST), 1.0)
    np.testing.assert_allclose(ssim(FIRST, SECOND), ssim(SECOND, FIRST))
    assert bool((ssim(FIRST, np.full_like(FIRST, 0.5)) < ssim(FIRST, SECOND)).all())
    assert bool(np.isinf(psnr(FIRST, FIRST)).all())
    assert psnr(np.zeros((1, 1, 4, 4)), np.full((1, 1, 4, 4), 0.1))[0] == pytest.approx(20.0)


def test_wrong_shapes_and_windows_are_refused() -> None:
    with pytest.raises(DataError, match="one shape"):
        ssim(FIRST, SECOND[:2])
    with pytest.raises(DataError, match="one shape"):
        psnr(FIRST[0], SECOND[0])
    for window in (4, 1, 13):
        with pytest.raises(DataError, match="odd, at least 3"):
            ssim(FIRST, SECOND, window=window)

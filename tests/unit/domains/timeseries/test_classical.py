"""Forecasts without training agree with what is written out step by step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.domains.timeseries.classical import DAMPING, LEVELS, SEASONS, TRENDS, exponential_smoothing, seasonal_naive


def test_the_last_season_comes_again() -> None:
    context = np.arange(12.0).reshape(2, 6)
    assert seasonal_naive(context, 5, 3).tolist() == [[3, 4, 5, 3, 4], [9, 10, 11, 9, 10]]
    assert seasonal_naive(context, 2, 1).tolist() == [[5, 5], [11, 11]]
    assert seasonal_naive(context, 2, 7).tolist() == [[5, 5], [11, 11]], "a season beyond the context is none"


def smoothed(values: np.ndarray, horizon: int, season: int) -> list[float]:
    """One series, one constant after the other, in plain Python."""
    best, forecast = np.inf, [0.0] * horizon
    has_season = season > 1 and len(values) >= 2 * season
    period = season if has_season else 1
    for alpha, beta, gamma in itertools.product(LEVELS, TRENDS, SEASONS if has_season else (0.0,)):
        level, trend, error = float(np.mean(values[:period])), 0.0, 0.0
        seasonal = [value - level for value in values[:period]] if has_season else [0.0]
        for step in range(period, len(values)):
            old = seasonal[step % period]
            expected = level + DAMPING * trend + old
            error += (values[step] - expected) ** 2
            before = level
            level = alpha * (values[step] - old) + (1 - alpha) * (level + DAMPING * trend)
            trend = beta * (level - before) + (1 - beta) * DAMPING * trend
            if has_season:
                seasonal[step % period] = gamma * (values[step] - level) + (1 - gamma) * old
        if error < best:
            best, ahead, forecast = error, 0.0, []
            for step in range(horizon):
                ahead += DAMPING ** (step + 1)
                forecast.append(level + ahead * trend + seasonal[(len(values) + step) % period])
    return forecast


@pytest.mark.parametrize("season", [1, 4, 20])
def test_smoothing_is_that_of_every_row_alone(season: int) -> None:
    random = np.random.default_rng(0)
    context = np.cumsum(random.normal(size=(2, 3, 24)), axis=2) + 3 * np.sin(np.pi / 2 * np.arange(24))
    found = exponential_smoothing(context, 5, season)
    assert found.shape == (2, 3, 5)
    for row, channel in np.ndindex(2, 3):
        np.testing.assert_allclose(found[row, channel], smoothed(context[row, channel], 5, season), rtol=1e-9)


def test_a_plain_season_is_continued() -> None:
    wave = np.sin(2 * np.pi * np.arange(40) / 8)
    np.testing.assert_allclose(exponential_smoothing(wave[None, :32], 8, 8)[0], wave[32:], atol=1e-6)


@pytest.mark.parametrize("forecast", [seasonal_naive, exponential_smoothing])
def test_sizes_below_one_are_refused(forecast: object) -> None:
    for horizon, season in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="at least 1"):
            forecast(np.zeros((1, 4)), horizon, season)  # type: ignore[operator]


def test_an_unknown_value_gives_no_number() -> None:
    context = np.arange(24.0).reshape(2, 12)
    whole = exponential_smoothing(context, 3, 4)
    context[1, 5] = np.nan
    found = exponential_smoothing(context, 3, 4)
    np.testing.assert_array_equal(found[0], whole[0])
    assert np.isnan(found[1]).all()

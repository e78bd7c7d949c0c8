"""Forecasts without training: the last season again, and exponential smoothing. Pure NumPy, all rows at once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["exponential_smoothing", "seasonal_naive"]

Array = NDArray[Any]
LEVELS, TRENDS, SEASONS = (0.05, 0.2, 0.5, 0.9), (0.0, 0.05, 0.2), (0.05, 0.3)
"""Smoothing constants that are tried, and the best kept for each row; trend 0 has none."""
DAMPING = 0.9
"""Factor on the trend from step to step."""


def seasonal_naive(context: Array, horizon: int, season: int) -> Array:
    """Return the last season of each context again and again.

    Args:
        context: Values ``[..., T]``.
        horizon: Steps to forecast.
        season: Steps of a season; 1 repeats the last value, and so does a season that is longer than the context.

    Returns:
        Forecasts ``[..., horizon]``.

    Raises:
        ConfigError: If ``horizon`` or ``season`` is below 1.
    """
    _check(horizon, season)
    length = context.shape[-1]
    # A season that the context does not hold whole cannot be repeated.
    period = season if season <= length else 1
    return context[..., length - period + np.arange(horizon) % period]


def exponential_smoothing(context: Array, horizon: int, season: int) -> Array:
    """Return additive Holt-Winters forecasts with a damped trend.

    For each row the smoothing constants of the grid are taken whose one-step errors over the context, after the first season,
    have the smallest square. Contexts of less than two seasons get no season.

    Args:
        context: See :func:`seasonal_naive`. Fill unknown values before.
        horizon: See :func:`seasonal_naive`.
        season: See :func:`seasonal_naive`.

    Returns:
        Forecasts ``[..., horizon]``; NaN for contexts that hold NaN.

    Raises:
        ConfigError: If ``horizon`` or ``season`` is below 1.
    """
    _check(horizon, season)
    rows = context.reshape(-1, context.shape[-1]).astype(np.float64)
    # One season is used up for the start; with another one there is something to smooth.
    has_season = season > 1 and 2 * season <= rows.shape[1]
    best_error = np.full(len(rows), np.inf)
    # A row with an unknown value has no error that is smaller than another; like the naive forecast it gets NaN, never a number.
    best = np.full((len(rows), horizon), np.nan)
    for alpha, beta, gamma in itertools.product(LEVELS, TRENDS, SEASONS if has_season else (0.0,)):
        error, forecast = _holt_winters(rows, horizon, season if has_season else 1, alpha, beta, gamma)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best[better] = forecast[better]
    return best.reshape(*context.shape[:-1], horizon)


def _holt_winters(rows: Array, horizon: int, season: int, alpha: float, beta: float, gamma: float) -> tuple[Array, Array]:
    """Return the sum of squared one-step errors after the first season, ``[N]``, and forecasts ``[N, horizon]``."""
    length = rows.shape[1]
    # A mean over a whole season is free of it.
    level = rows[:, :season].mean(axis=1)
    trend = np.zeros(len(rows))
    seasonal = rows[:, :season] - level[:, None] if season > 1 else np.zeros((len(rows), 1))
    error = np.zeros(len(rows))
    for step in range(season, length):
        place = step % season
        # The forecast from what was known before this step: its error rates the constants.
        expected = level + DAMPING * trend + seasonal[:, place]
        error += np.square(rows[:, step] - expected)
        moved = alpha * (rows[:, step] - seasonal[:, place]) + (1 - alpha) * (level + DAMPING * trend)
        trend = beta * (moved - level) + (1 - beta) * DAMPING * trend
        level = moved
        if season > 1:
            seasonal[:, place] = gamma * (rows[:, step] - level) + (1 - gamma) * seasonal[:, place]
    # A damped trend adds DAMPING + DAMPING^2 + ... up to the step.
    ahead = np.cumsum(DAMPING ** np.arange(1, horizon + 1))
    return error, level[:, None] + ahead * trend[:, None] + seasonal[:, (length + np.arange(horizon)) % season]


def _check(horizon: int, season: int) -> None:
    if horizon < 1 or season < 1:
        raise ConfigError(f"horizon and season must be at least 1; got {horizon!r} and {season!r}.")

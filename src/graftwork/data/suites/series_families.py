"""Generated families of series: each draws data sets of one kind of process, with trend, seasons at the rates of days, weeks and
years, autocorrelated noise, and channels that resemble each other.

Families are named after what they resemble. Amplitudes, shapes, noise and lags between channels are drawn anew for each data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from graftwork.data.suites.series_records import SeriesRecord

__all__ = ["FAMILIES", "HELD_OUT", "LEARNED", "draw_record"]

Array = NDArray[Any]
Random = np.random.Generator
HOUR, DAY, MONTH = 3600.0, 86400.0, 2629800.0
CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Family:
    """How data sets of a family are drawn."""

    draw: Callable[[Random, int, float], tuple[Array, int]]
    """``draw(random, steps, interval)`` returns values ``[steps, CHANNELS]`` and the season in steps."""
    intervals: tuple[float, ...]
    """Seconds between steps, one of which is drawn."""
    steps: int


def draw_record(family: str, number: int, random: Random) -> SeriesRecord:
    """Return the data set ``number`` of a family of :data:`FAMILIES`; the family is its group."""
    recipe = FAMILIES[family]
    interval = float(recipe.intervals[random.integers(len(recipe.intervals))])
    values, season = recipe.draw(random, recipe.steps, interval)
    unit = np.exp(random.normal(0.0, 2.0))  # the user's units are anything
    values = unit * (values + random.normal(0.0, 3.0))
    return SeriesRecord(name=f"{family}-{number}", values=values, interval=interval, season=season, group=family)


def _noise(random: Random, steps: int, memory: float, size: float) -> Array:
    """Return first-order autoregressive noise ``[steps, CHANNELS]`` of deviation ``size``."""
    # Scaled so that the process has deviation `size`: its variance is that of the shocks over 1 - memory^2.
    shocks = random.normal(size=(steps + 200, CHANNELS)) * size * np.sqrt(1.0 - memory**2)
    # The first 200 steps are dropped: they still remember the start at 0.
    return lfilter([1.0], [1.0, -memory], shocks, axis=0)[200:]


def _wave(random: Random, phase: Array, harmonics: int = 3, decay: float = 1.0) -> Array:
    """Return a random periodic function of ``phase`` (1 is a period), of deviation 1."""
    orders = np.arange(1, harmonics + 1)
    weights = random.normal(size=(2, harmonics)) / orders**decay
    # A cosine has variance 1/2, so the deviation becomes 1.
    weights /= np.sqrt(0.5 * np.square(weights).sum())
    # [..., harmonics]
    angles = 2.0 * np.pi * phase[..., None] * orders
    return np.cos(angles) @ weights[0] + np.sin(angles) @ weights[1]


def _phase(random: Random, steps: int, period: float, spread: float = 0.1) -> Array:
    """Return phases ``[steps, CHANNELS]`` of a period in steps; channels lag a little behind each other."""
    lags = random.uniform() + np.sort(random.uniform(0.0, spread, CHANNELS))
    return np.arange(steps)[:, None] / period - lags


def _weekend(steps: int, interval: float, random: Random) -> Array:
    """Return what is left of a level on each step, ``[steps, 1]``: less on two days of seven."""
    # A random weekday at the beginning.
    day = np.floor(np.arange(steps) * interval / DAY + random.integers(7)) % 7
    return np.where(day >= 5, 1.0 - random.uniform(0.2, 0.8), 1.0)[:, None]


def _office(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    busy = 1.0 / (1.0 + np.exp(-random.uniform(2.0, 6.0) * _wave(random, _phase(random, steps, season), 2)))
    return busy * _weekend(steps, interval, random) + _noise(random, steps, 0.8, random.uniform(0.03, 0.15)), season


def _traffic(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    phase = _phase(random, steps, season, 0.05) % 1.0
    peaks = [(random.uniform(0.2, 0.4), random.uniform(0.04, 0.08)), (random.uniform(0.6, 0.8), random.uniform(0.05, 0.1))]
    shape = sum(np.exp(-0.5 * np.square((phase - place) / width)) for place, width in peaks)
    return shape * _weekend(steps, interval, random) + _noise(random, steps, 0.6, random.uniform(0.05, 0.2)), season


def _solar(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    height = np.maximum(np.sin(2.0 * np.pi * _phase(random, steps, season, 0.02)) - random.uniform(-0.4, 0.3), 0.0)
    clouds = 1.0 / (1.0 + np.exp(-2.0 - 2.0 * _noise(random, steps, 0.97, 1.0)))
    return height * clouds + 0.02 * random.normal(size=(steps, CHANNELS)), season


def _heating(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    year = np.cos(2.0 * np.pi * _phase(random, steps, 365.25 * DAY / interval))
    day = _wave(random, _phase(random, steps, season), 3)
    return day + 2.0 * year + _noise(random, steps, 0.98, random.uniform(0.3, 1.0)), season


def _sales(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    week = 1.0 + 0.3 * _wave(random, _phase(random, steps, 7.0, 0.0), 3, 0.3)
    year = 1.0 + 0.3 * _wave(random, _phase(random, steps, 365.25), 2)
    growth = np.exp(random.normal(0.0, 0.5) * np.arange(steps)[:, None] / steps)
    return week * year * growth + _noise(random, steps, 0.3, random.uniform(0.05, 0.25)), 7


def _output(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    growth = np.cumsum(random.normal(0.002, 0.004, size=(steps, 1)), axis=0)
    cycle = _noise(random, steps, 0.97, 0.08)
    season = random.uniform(0.03, 0.15) * _wave(random, _phase(random, steps, 12.0, 0.0), 5, 0.3)
    return 5.0 * np.exp(growth + cycle + season) + _noise(random, steps, 0.0, random.uniform(0.02, 0.2)), 12


def _births(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    slow = np.cumsum(random.normal(0.0, random.uniform(0.02, 0.1), (steps, 1)), axis=0)
    season = _wave(random, _phase(random, steps, 12.0, 0.0), int(random.integers(2, 6)), random.uniform(0.2, 1.0))
    strength = 1.0 + 0.3 * _noise(random, steps, 0.98, 1.0)[:, :1]
    return slow + season * strength + _noise(random, steps, random.uniform(0.0, 0.6), random.uniform(0.05, 0.4)), 12


def _cycles(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    period, damping = np.exp(random.uniform(np.log(5.0), np.log(50.0))), random.uniform(0.97, 0.998)
    shocks = random.normal(size=(steps + 400, 1)) + 0.3 * random.normal(size=(steps + 400, CHANNELS))
    # A damped oscillator driven by noise: poles at damping * exp(+-2 pi i / period).
    shape = lfilter([1.0], [1.0, -2.0 * damping * np.cos(2.0 * np.pi / period), damping**2], shocks, axis=0)[400:]
    return shape / shape.std(axis=0) + _noise(random, steps, 0.0, random.uniform(0.02, 0.3)), 1


def _walk(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    common, own = random.normal(size=(steps, 1)), random.normal(size=(steps, CHANNELS))
    slope = lfilter([1.0], [1.0, -0.98], 0.02 * random.normal(size=(steps, CHANNELS)), axis=0) * random.integers(0, 2)
    return np.cumsum(0.1 * (common + own) + slope, axis=0) + _noise(random, steps, 0.0, random.uniform(0.01, 0.3)), 1


def _seasons(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    periods = {HOUR: (24.0, 12.0), DAY: (7.0, 30.44), MONTH: (12.0, 6.0)}[interval]
    period = periods[random.integers(2)]
    shape = _wave(random, _phase(random, steps, period), int(random.integers(1, 6)), random.uniform(0.3, 1.5))
    drift = np.cumsum(random.normal(0.0, 0.02, (steps, CHANNELS)), axis=0) * random.integers(0, 2)
    return shape + drift + _noise(random, steps, random.uniform(0.0, 0.95), random.uniform(0.05, 0.6)), round(period)


def _demand(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    phase = np.arange(steps)[:, None] / season - np.arange(CHANNELS) * random.uniform(0.02, 0.06)  # regions one after the other
    base = _wave(random, phase, 5, 0.8)
    heat = _noise(random, steps, 0.995, 1.0)[:, :1]
    return 0.5 * base * _weekend(steps, interval, random) + 0.4 * heat * (1.0 + 0.5 * base) + _noise(
        random, steps, 0.7, 0.1
    ), season


def _ozone(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    season = round(DAY / interval)
    sun = np.maximum(np.sin(2.0 * np.pi * _phase(random, steps, season, 0.1)), -0.2)
    heat = _noise(random, steps, 0.99, 0.5)[:, :1]
    return np.exp(0.8 * sun + heat) + _noise(random, steps, 0.5, 0.15), season


def _visitors(random: Random, steps: int, interval: float) -> tuple[Array, int]:
    trend = np.cumsum(0.02 * random.normal() + random.normal(0.0, 0.1, (steps, 1)), axis=0)
    season = random.uniform(0.4, 1.0, CHANNELS) * _wave(random, _phase(random, steps, 4.0, 0.0), 2, 0.3)
    strength = 1.0 + 0.5 * _noise(random, steps, 0.97, 1.0)[:, :1]
    return trend + season * strength + _noise(random, steps, 0.3, 0.35), 4


LEARNED: dict[str, Family] = {
    "office": Family(_office, (1800.0,), 3000),
    "traffic": Family(_traffic, (1800.0, HOUR), 3000),
    "solar": Family(_solar, (1800.0,), 3000),
    "heating": Family(_heating, (1800.0, HOUR), 4000),
    "sales": Family(_sales, (DAY,), 1200),
    "output": Family(_output, (MONTH,), 900),
    "births": Family(_births, (MONTH,), 900),
    "cycles": Family(_cycles, (HOUR, DAY, MONTH), 1200),
    "walk": Family(_walk, (HOUR, DAY, MONTH), 1200),
    "seasons": Family(_seasons, (HOUR, DAY, MONTH), 1500),
}
"""Families that a forecaster is trained on."""
HELD_OUT: dict[str, Family] = {
    "demand": Family(_demand, (HOUR,), 3000),
    "ozone": Family(_ozone, (HOUR,), 3000),
    "visitors": Family(_visitors, (3.0 * MONTH,), 3000),
}
"""Families that it is asked about."""
FAMILIES = {**LEARNED, **HELD_OUT}

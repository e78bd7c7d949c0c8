"""From measurements to a verdict: paired differences over seeds, their intervals and signs, the same arithmetic for every
system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from graftwork.claims.experiment import Inequality, Measurements, Recipe
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import Interval
from graftwork.evaluation.paired import paired_interval

__all__ = ["Finding", "Verdict", "VerdictWord", "derive_measurements", "flatten_measurements", "judge"]

VerdictWord = Literal["holds", "partly", "does not hold"]

Results = Mapping[int, Mapping[str, Mapping[str, float]]]
"""``{seed: {arm: {metric: value}}}``, flat names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One inequality and what the data say about it."""

    name: str
    demand: str
    primary: bool
    left: str
    right: str
    left_mean: float
    """Mean over seeds of the left side, with its factor."""
    right_mean: float
    differences: tuple[float, ...]
    """Left minus right, one per seed, in the order of the seeds."""
    difference: Interval
    """Mean of the differences with its paired t interval."""
    margin: float
    signs: int
    """Number of seeds whose difference is above 0."""
    min_sign_seeds: int
    unit: str
    holds: bool
    reason: str
    """What decided it, one short sentence."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "differences": list(self.differences)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a full run says about a system's claim."""

    word: VerdictWord
    """``holds``: all primary inequalities do; ``partly``: some; ``does not hold``: none."""
    findings: tuple[Finding, ...]


def flatten_measurements(measurements: Measurements, *, where: str = "") -> dict[str, float]:
    """Return ``{"scores.depth.rmse": 0.3}`` for nested measurements.

    Args:
        measurements: Numbers and mappings of such.
        where: Which arm and seed, for messages.

    Raises:
        GraftworkError: If a value is not a finite number.
    """
    flat: dict[str, float] = {}
    for name, value in measurements.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": number for key, number in flatten_measurements(value, where=where).items()}
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise GraftworkError(f"{where or 'The arm'} measured {name} = {value!r}; measurements are finite numbers.") from None
        if not math.isfinite(number):
            raise GraftworkError(
                f"{where or 'The arm'} measured {name} = {number}; a measurement must be finite. If the training diverged, "
                "measure what a user would get then (chance level), and say so in the recipe's notes."
            )
        flat[name] = number
    return flat


def derive_measurements(recipe: Recipe, results: Results) -> dict[int, dict[str, dict[str, float]]]:
    """Return the results with what the recipe derives from several arms of one seed added."""
    complete: dict[int, dict[str, dict[str, float]]] = {}
    for seed, by_arm in results.items():
        complete[seed] = {arm: dict(values) for arm, values in by_arm.items()}
        if recipe.derive is not None:
            for arm, values in recipe.derive(by_arm).items():
                complete[seed][arm] |= flatten_measurements(values, where=f"derive() for arm {arm!r}, seed {seed},")
    return complete


def judge(recipe: Recipe, results: Results) -> Verdict:
    """Hold a recipe's inequalities against measurements.

    Args:
        recipe: The recipe.
        results: Measurements of all arms for every seed, derived ones included (see :func:`derive_measurements`).

    Raises:
        ConfigError: If an inequality names a metric that was not measured.
    """
    findings = tuple(_find(inequality, recipe, results) for inequality in recipe.inequalities)
    primary = [finding.holds for finding in findings if finding.primary]
    # Secondary inequalities are reported and never decide.
    word: VerdictWord = "holds" if all(primary) else "partly" if any(primary) else "does not hold"
    return Verdict(word, findings)


def _find(inequality: Inequality, recipe: Recipe, results: Results) -> Finding:
    left = [inequality.left_factor * _side(inequality, inequality.left, values) for values in results.values()]
    right = [inequality.right_factor * _side(inequality, inequality.right, values) for values in results.values()]
    differences = tuple(a - b for a, b in zip(left, right, strict=True))
    if len(differences) > 1:
        interval = paired_interval(differences)
    else:  # a smoke run on one seed: nothing is known about the spread
        interval = Interval(differences[0], -math.inf, math.inf)
    signs = sum(difference > 0 for difference in differences)
    # The demand keeps its share when more seeds are run; rounded up, so that it never gets easier.
    asked = math.ceil(inequality.min_sign_seeds * max(len(results), 1) / len(recipe.seeds))
    holds, reason = _decide(inequality, interval, signs, asked, len(differences))
    return Finding(
        name=inequality.name,
        demand=inequality.demand,
        primary=inequality.primary,
        left=_label(inequality.left, inequality.left_factor),
        right=_label(inequality.right, inequality.right_factor),
        left_mean=float(np.mean(left)),
        right_mean=float(np.mean(right)),
        differences=differences,
        difference=interval,
        margin=inequality.margin,
        signs=signs,
        min_sign_seeds=asked,
        unit=inequality.unit,
        holds=holds,
        reason=reason,
    )


def _decide(inequality: Inequality, interval: Interval, signs: int, asked: int, num_seeds: int) -> tuple[bool, str]:
    mean, margin = interval.value, inequality.margin
    if inequality.demand == "not worse":
        if mean < -margin:
            return False, f"the mean is worse by more than {margin:g}"
        # Not worse means two things: within the margin, and not proven to be below 0.
        if interval.high < 0:
            return False, "it is worse in a way that chance does not explain"
        return True, "not worse beyond the margin and chance"
    if mean < margin:
        return False, f"the mean difference is below the margin of {margin:g}"
    # `at least` needs no interval: costs and counts have no noise to speak of.
    if inequality.demand == "better" and interval.low <= 0:
        return False, "the interval of the difference does not exclude 0"
    if signs < asked:
        return False, f"the sign holds in {signs} of {num_seeds} seeds, {asked} are needed"
    return True, f"the sign holds in {signs} of {num_seeds} seeds"


def _side(inequality: Inequality, side: str | float, by_arm: Mapping[str, Mapping[str, float]]) -> float:
    if not isinstance(side, str):
        return float(side)
    arm, _, metric = side.partition(".")
    values = by_arm.get(arm, {})
    if metric not in values:
        measured = ", ".join(sorted(values)) or "nothing"
        raise ConfigError(f"Inequality {inequality.name!r} needs {side!r}, but arm {arm!r} measured {measured}.")
    return values[metric]


def _label(side: str | float, factor: float) -> str:
    name = side if isinstance(side, str) else f"{side:g}"
    return name if factor == 1.0 else f"{factor:g} x {name}"

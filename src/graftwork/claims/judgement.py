"""From measurements to a verdict: paired differences over seeds, their intervals at each look, and what they say, the same
arithmetic for every system."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from graftwork.claims.experiment import Demand, Inequality, Measurements, Recipe
from graftwork.claims.headroom import HeadroomFinding, measure_headroom
from graftwork.claims.looks import look_interval
from graftwork.claims.sides import arms_of
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import Interval
from graftwork.core.verdicts import State, VerdictWord, verdict_word

__all__ = ["Finding", "Look", "Verdict", "decide", "derive_measurements", "flatten_measurements", "judge"]

Results = Mapping[int, Mapping[str, Mapping[str, float]]]
"""``{seed: {arm: {metric: value}}}``, flat names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What an inequality came to after some of the seeds."""

    seeds: int
    """How many."""
    difference: Interval
    """Mean of the differences of the first seeds, with the interval that this look allows."""
    state: State


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
    """Mean of the differences with the paired interval of the last look."""
    margin: float
    signs: int
    """Number of seeds whose difference is above 0."""
    min_sign_seeds: int
    unit: str
    state: State
    reason: str
    """What decided it, or did not, one short sentence."""
    looks: tuple[Look, ...]
    """One a planned look up to now, in order; empty if none is planned after so few seeds."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        fields = asdict(self)
        return {**fields, "differences": list(self.differences), "looks": list(fields["looks"])}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a full run says about a system's claim."""

    word: VerdictWord
    findings: tuple[Finding, ...]
    reason: str
    """What made the word, one short sentence."""
    headroom: tuple[HeadroomFinding, ...] = ()
    """What there is to be won in this setting; empty if the recipe does not measure it."""

    @property
    def is_decided(self) -> bool:
        """Whether every primary inequality is shown or refuted, or the setting is known to be unable to show it, so that more
        seeds would change nothing."""
        hopeless = {name for item in self.headroom if item.state == "refuted" for name in item.inequalities}
        return all(finding.state != "open" or finding.name in hopeless for finding in self.findings if finding.primary)


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


def judge(recipe: Recipe, results: Results, looks: Sequence[int] = ()) -> Verdict:
    """Hold a recipe's inequalities against measurements.

    Args:
        recipe: The recipe.
        results: Measurements of all arms for every seed, derived ones included (see :func:`derive_measurements`), in the order in
            which the seeds were planned.
        looks: The numbers of seeds after which the run looks; the recipe's where none are given. After any other number of seeds
            nothing is decided.

    Raises:
        ConfigError: If an inequality names a metric that was not measured.
    """
    plan = tuple(looks) or recipe.looks
    findings = tuple(_find(inequality, recipe, results, plan) for inequality in recipe.inequalities)
    primary = [finding.name for finding in findings if finding.primary]
    headroom = measure_headroom(recipe.headroom, results, primary)
    # What could not have been shown is not judged, whatever the numbers are.
    for item in headroom:
        if item.state != "shown":
            why = item.objection
            findings = tuple(
                replace(finding, state="open", reason=why) if finding.name in item.inequalities else finding
                for finding in findings
            )
    # Secondary inequalities are reported and never decide.
    states = [finding.state for finding in findings if finding.primary]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("shown", "refuted", "open") if state in states)
    reason = f"of {len(states)} primary inequalities {counts}, after {len(results)} of at most {plan[-1]} seeds"
    lacking = [item for item in headroom if item.state != "shown"]
    if lacking and {name for item in lacking for name in item.inequalities} >= set(primary):
        reason = lacking[0].objection
    elif not headroom:
        reason += "; no headroom is declared"
    return Verdict(verdict_word(states), findings, reason, headroom)


def decide(demand: Demand, margin: float, interval: Interval, signs: int, asked: int, num_seeds: int) -> tuple[State, str]:
    """Return what an inequality comes to, and the reason in words.

    Args:
        demand: ``better``, ``not worse`` or ``at least``.
        margin: At least 0; see :class:`graftwork.claims.experiment.Inequality`.
        interval: Mean of the differences with the interval of a look.
        signs: Number of seeds whose difference is above 0.
        asked: Number of seeds that must have the sign.
        num_seeds: Number of seeds.

    Returns:
        - ``better``: shown if the interval lies above 0 and the mean reaches the margin; refuted if the interval lies below the
          margin, so that what is claimed is excluded, or nowhere above 0.
        - ``not worse``: shown if the interval lies at or above minus the margin, refuted if it lies below.
        - ``at least``: shown if the interval lies at or above the margin, refuted if it lies below.

        Whatever is neither is open, and so is what lacks signs.
    """
    if demand == "better":
        if interval.high < margin or interval.high <= 0.0:
            # A margin of 0 and differences that are all 0 end here as well.
            return "refuted", f"the interval excludes a difference of {margin:g}" if margin else "the interval is not above 0"
        if interval.low <= 0.0:
            return "open", "the interval does not exclude 0"
        if interval.value < margin:
            return "open", f"the mean difference is below the margin of {margin:g}, and the interval reaches it"
        bound = 0.0
    else:
        # 0 less the margin: minus a margin of 0 would be told as -0.
        bound = 0.0 - margin if demand == "not worse" else margin
        # What does not vary, costs and counts, may sit on the bound up to rounding.
        slack = 1e-12 * max(1.0, abs(bound))
        if interval.high < bound - slack:
            return "refuted", f"the interval lies below {bound:g}"
        if interval.low < bound - slack:
            return "open", f"the interval reaches below {bound:g}"
    if signs < asked:
        return "open", f"the sign holds in {signs} of {num_seeds} seeds, {asked} are needed"
    return "shown", f"the interval lies above {bound:g}" if interval.low > bound else f"it is {bound:g} in all seeds"


def _find(inequality: Inequality, recipe: Recipe, results: Results, plan: tuple[int, ...]) -> Finding:
    left = [inequality.left_factor * _side(inequality, inequality.left, values) for values in results.values()]
    right = [inequality.right_factor * _side(inequality, inequality.right, values) for values in results.values()]
    differences = tuple(a - b for a, b in zip(left, right, strict=True))
    count = len(differences)
    looks = tuple(_look(inequality, recipe, differences[:seeds], plan)[0] for seeds in plan if seeds <= count)
    last, signs, asked, reason = _look(inequality, recipe, differences, plan)
    is_planned = count in plan
    return Finding(
        name=inequality.name,
        demand=inequality.demand,
        primary=inequality.primary,
        left=_label(inequality.left, inequality.left_factor),
        right=_label(inequality.right, inequality.right_factor),
        left_mean=float(np.mean(left)),
        right_mean=float(np.mean(right)),
        differences=differences,
        difference=last.difference,
        margin=inequality.margin,
        signs=signs,
        min_sign_seeds=asked,
        unit=inequality.unit,
        state=last.state if is_planned else "open",
        reason=reason if is_planned else f"no look is planned after {count} seed{'s' if count > 1 else ''}",
        looks=looks,
    )


def _look(
    inequality: Inequality, recipe: Recipe, differences: tuple[float, ...], plan: tuple[int, ...]
) -> tuple[Look, int, int, str]:
    count = len(differences)
    signs = sum(difference > 0 for difference in differences)
    # The demand keeps its share when other numbers of seeds are run; rounded up, so that it never gets easier.
    asked = math.ceil(inequality.min_sign_seeds * max(count, 1) / len(recipe.seeds))
    interval = look_interval(differences, plan)
    state, reason = decide(inequality.demand, inequality.margin, interval, signs, asked, count)
    return Look(seeds=count, difference=interval, state=state), signs, asked, reason


def _side(inequality: Inequality, side: str | float, by_arm: Mapping[str, Mapping[str, float]]) -> float:
    if not isinstance(side, str):
        return float(side)
    arms, metric = arms_of(side)
    for arm in arms:
        values = by_arm.get(arm, {})
        if metric not in values:
            measured = ", ".join(sorted(values)) or "nothing"
            raise ConfigError(f"Inequality {inequality.name!r} needs {side!r}, but arm {arm!r} measured {measured}.")
    return min(by_arm[arm][metric] for arm in arms)


def _label(side: str | float, factor: float) -> str:
    name = side if isinstance(side, str) else f"{side:g}"
    return name if factor == 1.0 else f"{factor:g} x {name}"

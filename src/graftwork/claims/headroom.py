"""Headroom: whether a setting leaves something to be won, so that it could have shown the claim at all.

An arm that bounds what can be won (an oracle, more data, the upper baseline) must beat the baseline by some factor times the
margin. Where it does not, the baseline is at its ceiling, or at chance, or the world is too small, and the reproduction says
nothing about the paper: what it would have judged stays open, whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graftwork.claims.looks import look_interval
from graftwork.core.errors import ConfigError
from graftwork.core.records import Interval
from graftwork.core.verdicts import State

__all__ = ["Headroom", "HeadroomFinding", "measure_headroom"]


@dataclass(frozen=True, slots=True)
class Headroom:
    """What must be left to be won in a setting: ``bound`` beats ``baseline`` by ``factor`` times ``margin`` at least."""

    bound: str | float
    """``"arm.metric"`` of the arm that bounds what can be won, or the best value that the metric has (100 % of what can be
    explained)."""
    baseline: str
    """``"arm.metric"`` of what the system has to beat."""
    margin: float
    """Smallest difference that matters, as in the inequalities; 0 asks that there is anything to be won."""
    factor: float = 2.0
    """How many margins there must be."""
    lower_is_better: bool = False
    """Whether the bound has to be below the baseline (errors, costs)."""
    inequalities: tuple[str, ...] = ()
    """Names of the inequalities that need this headroom; empty means all primary ones."""
    unit: str = ""

    @property
    def needed(self) -> float:
        """The difference that there must be."""
        return self.factor * self.margin

    def problems(self, arms: Sequence[str], inequalities: Sequence[str]) -> list[str]:
        """Return what does not fit to a recipe with these names of arms and inequalities."""
        found: list[str] = []
        for side in (self.bound, self.baseline):
            if not isinstance(side, str):
                continue
            arm, dot, metric = side.partition(".")
            if not dot or not metric or arm not in arms:
                found.append(f"headroom: a side is 'arm.metric' with one of the arms {', '.join(arms)}; got {side!r}")
        if self.margin < 0 or self.factor <= 0:
            found.append(
                f"headroom: the margin is at least 0 and the factor above 0; got {self.margin} and {self.factor}. Say with "
                "lower_is_better where the bound is below the baseline"
            )
        found += [f"headroom: there is no inequality {name!r}" for name in self.inequalities if name not in inequalities]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadroomFinding:
    """A headroom and what the data say about it."""

    bound: str
    baseline: str
    difference: Interval
    """How far the bound is ahead, with the plain interval over seeds: it describes the setting, and no look is spent on it."""
    needed: float
    state: State
    """``shown``: the mean reaches what is needed and the interval lies above 0; ``refuted``: the interval lies below what is
    needed; ``open``: neither, which is no headroom yet."""
    inequalities: tuple[str, ...]
    unit: str

    @property
    def sentence(self) -> str:
        """Say in words how much there is."""
        unit = f" {self.unit}" if self.unit else ""
        ahead = f"{self.bound} is ahead of {self.baseline} by {self.difference.value:.3g}{unit}"
        bounds = f"[{self.difference.low:.3g}, {self.difference.high:.3g}]"
        return f"{ahead} {bounds}, at least {self.needed:.3g} are needed"

    @property
    def objection(self) -> str:
        """Say why nothing that needs this headroom is judged."""
        start = "this setting cannot show it" if self.state == "refuted" else "so far nothing says that this setting can show it"
        return f"{start}: {self.sentence}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "inequalities": list(self.inequalities)}


def measure_headroom(
    headroom: Sequence[Headroom], results: Mapping[int, Mapping[str, Mapping[str, float]]], primary: Sequence[str]
) -> tuple[HeadroomFinding, ...]:
    """Return what measurements say about headrooms.

    Args:
        headroom: Those of the recipe.
        results: ``{seed: {arm: {metric: value}}}``, derived measurements included.
        primary: Names of the primary inequalities.

    Raises:
        ConfigError: If a metric was not measured.
    """
    findings = []
    for item in headroom:
        sign = -1.0 if item.lower_is_better else 1.0
        ahead = [sign * (_value(item.bound, by_arm) - _value(item.baseline, by_arm)) for by_arm in results.values()]
        interval = look_interval(ahead, (len(ahead),)) if len(ahead) > 1 else Interval(float(np.mean(ahead)), -np.inf, np.inf)
        state: State = "open"
        if interval.value >= item.needed and interval.low > 0:
            state = "shown"
        elif interval.high < item.needed or interval.high <= 0:
            state = "refuted"
        findings.append(
            HeadroomFinding(
                bound=item.bound if isinstance(item.bound, str) else f"{item.bound:g}",
                baseline=item.baseline,
                difference=interval,
                needed=item.needed,
                state=state,
                inequalities=item.inequalities or tuple(primary),
                unit=item.unit,
            )
        )
    return tuple(findings)


def _value(side: str | float, by_arm: Mapping[str, Mapping[str, float]]) -> float:
    if not isinstance(side, str):
        return float(side)
    arm, _, metric = side.partition(".")
    if metric not in by_arm.get(arm, {}):
        raise ConfigError(
            f"Headroom needs {side!r}, but arm {arm!r} measured {', '.join(sorted(by_arm.get(arm, {}))) or 'nothing'}."
        )
    return by_arm[arm][metric]

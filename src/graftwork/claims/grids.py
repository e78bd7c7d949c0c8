"""Grids that arms are tuned on before the counting run: declared in the recipe, equal in size, tried on seeds of their own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["FIRST_PILOT_SEED", "Grid", "Pilot", "Settings"]

FIRST_PILOT_SEED = 100
"""Pilots run on seeds from here on; counting runs on smaller ones."""

Grid: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Values to try by name of the setting; all combinations are tried."""
Settings: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """How the arms of a recipe are tuned: every arm has a grid, follows an arm that has one, or has nothing to tune.

    Each combination of values is run as an arm with these settings on the pilot's seeds; the best mean of ``score`` is chosen. The
    counting run takes what was chosen and cannot begin without it.
    """

    grids: Mapping[str, Grid]
    """``{arm: {setting: values}}``; all arms have equally many combinations. Settings are keys of the arm's own ``settings``."""
    score: tuple[str, ...]
    """Measurements whose mean is compared: names that ``run_arm`` measures, the same for all arms."""
    lower_is_better: bool = False
    seeds: tuple[int, ...] = (FIRST_PILOT_SEED, FIRST_PILOT_SEED + 1)
    """At least 100, so that nothing is tuned on what is counted."""
    follows: Mapping[str, str] = field(default_factory=dict)
    """``{arm: arm with a grid}``: ablations that take what another arm chose."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """``{arm: why}``: arms with nothing to tune (an oracle, a rule)."""
    limits: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values by setting beyond which there are none (a strength of 0, a share of 1): to choose one is no edge."""

    def trials(self, arm: str) -> list[dict[str, Any]]:
        """Return all combinations of an arm's grid."""
        grid = self.grids[arm]
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def best(self, scores: Sequence[float]) -> int:
        """Return the place of the best score, the first of equals."""
        return min(range(len(scores)), key=lambda place: scores[place] if self.lower_is_better else -scores[place])

    def edges(self, arm: str, chosen: Settings) -> list[str]:
        """Return in words which chosen values are at an end of their grid, so that a better one may lie beyond."""
        found: list[str] = []
        for name, value in chosen.items():
            values = self.grids[arm][name]
            if not all(_is_number(item) for item in values) or value in self.limits.get(name, ()):
                continue
            if value in (min(values), max(values)):
                tried = ", ".join(f"{item:g}" for item in sorted(values))
                found.append(f"arm {arm!r}: {name} = {value:g} is at the edge of its grid ({tried})")
        return found

    def choice_of(self, chosen: Mapping[str, Settings], arm: str) -> dict[str, Any]:
        """Return the settings that an arm takes from ``{arm: chosen settings}``: its own, those it follows, or none."""
        return dict(chosen.get(self.follows.get(arm, arm), {}))

    def problems(self, settings: Mapping[str, Settings], seeds: Sequence[int]) -> list[str]:
        """Return what does not fit to a recipe, given the settings of its arms by name and its counting seeds."""
        found: list[str] = []
        for arm in settings:
            places = [name for name in ("grids", "follows", "fixed") if arm in getattr(self, name)]
            if len(places) != 1:
                where = " and ".join(places) or "none"
                found.append(f"pilot: arm {arm!r} is in one of grids, follows and fixed; it is in {where}")
        unknown = sorted({*self.grids, *self.follows, *self.fixed} - set(settings))
        found += [f"pilot: no arm {arm!r}; the arms are {', '.join(settings)}" for arm in unknown]
        sizes = {arm: math.prod(len(values) for values in grid.values()) for arm, grid in self.grids.items()}
        if len(set(sizes.values())) > 1:
            found.append(
                f"pilot: grids have equally many trials; got {', '.join(f'{arm} {size}' for arm, size in sizes.items())}"
            )
        if not self.grids or not self.score:
            found.append("pilot: it has at least one grid and one score")
        for arm, grid in self.grids.items():
            for name, values in grid.items():
                if arm in settings and name not in settings[arm]:
                    found.append(
                        f"pilot: arm {arm!r} has no setting {name!r} to tune; it has {', '.join(settings[arm]) or 'none'}"
                    )
                if len(set(values)) != len(values) or len(values) < (3 if all(map(_is_number, values)) else 2):
                    # Of two numbers each is an edge.
                    found.append(
                        f"pilot: {name} of arm {arm!r} has 3 different numbers or 2 different words at least; got {values}"
                    )
        for arm, other in self.follows.items():
            missing = [name for name in self.grids.get(other, {}) if name not in settings.get(arm, {})]
            if other not in self.grids or missing:
                found.append(f"pilot: arm {arm!r} follows {other!r}, which has no grid or other settings ({', '.join(missing)})")
        if not self.seeds or min(self.seeds) < FIRST_PILOT_SEED or set(self.seeds) & set(seeds):
            found.append(f"pilot: its seeds are {FIRST_PILOT_SEED} or more and none of those that count; got {self.seeds}")
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

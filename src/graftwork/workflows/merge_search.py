"""Search of a merge's settings: all combinations of some values, judged by the models' scores on validation rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.coefficients import coefficient_points

__all__ = ["MergeTrial", "best_trial", "candidates"]


@dataclass(frozen=True, slots=True)
class MergeTrial:
    """One combination of settings that was tried."""

    settings: Mapping[str, Any]
    change: float
    """Mean change of the models' scores in percent, higher is better (see :func:`.merge_scores.mean_change`)."""


def candidates(search: Mapping[str, Sequence[Any] | int], num_models: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return all combinations of what is to be tried, in order.

    Args:
        search: Values by setting. For ``weights`` a number stands for so many points with sum 1: the first model alone, then an even
            grid (two models) or random ones.
        num_models: How many models are merged.
        seed: Draws the random points.

    Raises:
        ConfigError: If a setting has no value.
    """
    lists: dict[str, list[Any]] = {}
    for name, values in search.items():
        if isinstance(values, int):
            if name != "weights" or values < 1:
                raise ConfigError(
                    f"Values of {name!r} to be searched are a list; got {values!r}. A number (at least 1) is for weights."
                )
            points = coefficient_points(num_models, values, seed=seed)
            lists[name] = [tuple(round(float(share), 6) for share in point) for point in points]
        else:
            lists[name] = list(values)
        if not lists[name]:
            raise ConfigError(f"There is no value of {name!r} to be searched. Give some, such as {name}=0.2,0.4,0.6.")
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]


def best_trial(tried: Sequence[Mapping[str, Any]], judge: Callable[[Mapping[str, Any]], float]) -> tuple[int, list[MergeTrial]]:
    """Judge all combinations; return the place of the best one, the first of equals, and all of them.

    Args:
        tried: Combinations, at least one.
        judge: Returns the mean change for one.

    Raises:
        ConfigError: If no score is finite.
    """
    trials = [MergeTrial(settings, judge(settings)) for settings in tried]
    usable = [trial.change if math.isfinite(trial.change) else -math.inf for trial in trials]
    if max(usable) == -math.inf:
        raise ConfigError(f"None of the {len(trials)} combinations gives scores that are finite. Look at the models and rows.")
    return usable.index(max(usable)), trials

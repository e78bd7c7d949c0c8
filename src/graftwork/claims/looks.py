"""Looks at the differences while seeds are added, with intervals that are corrected for looking several times.

Whoever looks after 3, 5, 8, 13 and 20 seeds and stops at the first interval that excludes zero finds an effect that is not there
in far more than 2.5 % of all runs. So every look may spend only a part of the error: by the spending function of Lan and DeMets
(1983, https://doi.org/10.1093/biomet/70.3.659) in the form of O'Brien and Fleming, ``2 (1 - Phi(z / sqrt(f)))`` after the share
``f`` of the seeds. Early looks decide only what is overwhelming, the last one is nearly a plain t-test, and looks may be added or
left out without a new table.

Textbook boundaries are those of normal statistics with a known spread; with few seeds they are too narrow, and t quantiles at the
same levels still are. Here the recursion runs on the t statistics themselves. Under the null hypothesis only the direction of the
vector of differences matters, and the cosine ``c`` of its angle to ``(1, ..., 1)`` is a Markov chain over looks: from ``n`` to
``m`` seeds ``sqrt(m) c' = sqrt(n b) c + sqrt((m - n) (1 - b)) u``, with ``b`` from Beta(n / 2, (m - n) / 2) and ``u`` the same
cosine of the new seeds alone. So the critical values are exact for normal differences, up to the grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.core.records import Interval

__all__ = ["ERROR", "LOOKS", "MOST_SEEDS", "check_looks", "critical_values", "look_interval", "spent_error"]

LOOKS = (3, 5, 8, 13, 20)
"""Numbers of seeds after which a reproduction looks at its differences, unless its recipe says otherwise."""
ERROR = 0.025
"""Share of runs in which an effect of zero may be taken for one in the claimed direction, over all looks together."""

MOST_SEEDS = 500
"""Largest number of seeds in a plan of looks."""

Floats = NDArray[np.float64]
_CELLS, _NODES, _TABLE = 200, 30, 2000


def check_looks(looks: Sequence[int]) -> list[str]:
    """Return what is wrong with the numbers of seeds to look after; empty if nothing is.

    Example:
        >>> check_looks((3, 4))
        ['looks: each is at least 2 seeds after the one before, the first after 2 or more, the last after at most 500; got (3, 4)']
    """
    steps = [later - earlier for earlier, later in zip((0, *looks), looks, strict=False)]
    # With a single new seed the chain jumps, and a look after it would tell nearly the same as the one before.
    if looks and all(step >= 2 for step in steps) and looks[-1] <= MOST_SEEDS:
        return []
    return [
        f"looks: each is at least 2 seeds after the one before, the first after 2 or more, the last after at most {MOST_SEEDS}; "
        f"got {tuple(looks)}"
    ]


def spent_error(share: float) -> float:
    """Return how much of :data:`ERROR` may be spent after a share of the seeds, in (0, 1].

    Example:
        >>> round(spent_error(1.0), 6), spent_error(0.25) < 1e-5
        (0.025, True)
    """
    normal = require("scipy.stats", extra="train", purpose="Looks at several numbers of seeds").norm
    return float(2.0 * normal.sf(normal.isf(ERROR / 2) / math.sqrt(share)))


@functools.cache
def critical_values(looks: tuple[int, ...]) -> tuple[float, ...]:
    """Return the t statistic that a look has to exceed, for each look of a plan.

    Args:
        looks: Numbers of seeds, rising, as :func:`check_looks` demands; one number gives the plain t-test.

    Raises:
        ConfigError: If they are no plan of looks.

    Example:
        >>> [round(value, 2) for value in critical_values((8, 13, 20))]
        [5.63, 3.04, 2.14]
    """
    problems = check_looks(looks)
    if problems:
        raise ConfigError("These looks cannot be planned.", problems)
    values: list[float] = []
    spent = 0.0
    # Probability of each cell of cosines, over runs that no look has decided yet.
    cells, masses = np.empty(0), np.empty(0)
    for index, seeds in enumerate(looks):
        allowed = spent_error(seeds / looks[-1]) - spent
        # No look may spend more in all than it is allowed to spend alone: this cosine is enough in any case, and is the answer
        # where nothing was spent before.
        cosine = _from_t(_student().isf(allowed, seeds - 1), seeds)
        chain = functools.partial(_below, cells, masses, looks[index - 1], seeds)
        if index > 0:
            cosine = min(cosine, _crossing(chain, float(masses.sum()), allowed))
        values.append(float(_to_t(cosine, seeds)))
        spent += allowed
        if index == len(looks) - 1:
            break
        # Even in the angle: cosines near 1 are where early looks decide.
        edges = np.cos(np.linspace(math.pi, math.acos(cosine), _CELLS + 1))
        below = chain(edges) if index > 0 else _cosine_cdf(edges, seeds)
        cells, masses = (edges[1:] + edges[:-1]) / 2, np.diff(below)
    return tuple(values)


def look_interval(differences: Sequence[float], looks: Sequence[int]) -> Interval:
    """Return the mean of paired differences with the interval that the look at so many seeds allows.

    Args:
        differences: One difference a seed.
        looks: The plan of looks; for a number of seeds that is none of them, the interval is the plain one and decides nothing.

    Returns:
        With one seed alone the bounds are infinite. Differences that do not vary have an interval without width.
    """
    values = np.asarray(differences, dtype=np.float64)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    plan = tuple(looks) if count in looks else (count,)
    margin = critical_values(plan)[plan.index(count)] * float(values.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - margin, mean + margin)


def _student() -> Any:
    return require("scipy.stats", extra="train", purpose="Looks at several numbers of seeds").t


def _from_t(value: float, seeds: int) -> float:
    return float(value / math.sqrt(seeds - 1 + value * value))


def _to_t(cosine: Floats | float, seeds: int) -> Any:
    # At the ends the statistic is infinite, which the distribution function takes.
    with np.errstate(divide="ignore"):
        return np.sqrt(seeds - 1) * cosine / np.sqrt(1.0 - np.square(cosine))


def _cosine_cdf(cosines: Floats, seeds: int) -> Floats:
    return np.asarray(_student().cdf(_to_t(np.clip(cosines, -1.0, 1.0), seeds), seeds - 1), dtype=np.float64)


def _below(cells: Floats, masses: Floats, before: int, now: int, cosines: Floats) -> Floats:
    """Return the probability that no look has decided and the cosine after ``now`` seeds is at most each of ``cosines``."""
    new = now - before
    special = require("scipy.special", extra="train", purpose="Looks at several numbers of seeds")
    # Gauss-Jacobi nodes on [-1, 1] become those of the Beta distribution on [0, 1].
    nodes, weights = special.roots_jacobi(_NODES, new / 2 - 1, before / 2 - 1)
    shares, weights = (1.0 + nodes) / 2, weights / weights.sum()
    # The cosine of the new seeds alone has one distribution for all nodes and cells: tabulated once, even in the angle again.
    table = np.sin(np.linspace(-math.pi / 2, math.pi / 2, _TABLE))
    cdf = _cosine_cdf(table, new)
    total = np.zeros_like(cosines)
    for share, weight in zip(shares, weights, strict=True):
        old = math.sqrt(before * share) * cells
        needed = (math.sqrt(now) * cosines[:, None] - old) / math.sqrt(new * (1.0 - share))
        total += weight * (np.interp(needed, table, cdf) @ masses)
    return total


def _crossing(below: Any, total: float, allowed: float) -> float:
    """Return the cosine above which exactly the allowed probability lies."""
    optimize = require("scipy.optimize", extra="train", purpose="Looks at several numbers of seeds")
    return float(optimize.brentq(lambda cosine: total - below(np.array([cosine]))[0] - allowed, 0.0, 1.0 - 1e-12))

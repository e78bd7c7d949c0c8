"""Search of merging coefficients: which points of the simplex are tried, and which of them scores best.

The first point is always the first model (the *target*) alone, and equal scores keep the earlier point: a search never prefers a
merge that is no better than the target on the rows that it looks at. Points depend on numbers only, so that methods that are
compared try the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds

__all__ = ["CoefficientSearch", "coefficient_points", "search_coefficients"]


@dataclass(frozen=True, slots=True)
class CoefficientSearch:
    """What a search found."""

    weights: tuple[float, ...]
    """Coefficient of each model, at least 0, sum 1."""
    score: float
    scores: tuple[float, ...]
    """Of all points, in their order."""


def coefficient_points(num_models: int, trials: int, *, seed: int = 0, concentration: float = 1.0) -> NDArray[np.float64]:
    """Return points of the simplex, ``[trials, num_models]``: an even grid for two models, random ones for more.

    Args:
        num_models: At least 1.
        trials: At least 1; the first point is the target alone. For two models the last one is the other model alone.
        seed: Draws the points for three models and more.
        concentration: Of the symmetric Dirichlet distribution, above 0: 1 is uniform on the simplex, less favours its corners.

    Raises:
        ConfigError: If a number is out of range.
    """
    if num_models < 1 or trials < 1 or not 0.0 < concentration < math.inf:
        raise ConfigError(
            "The number of models and `trials` must be at least 1, and `concentration` above 0; "
            f"got {num_models!r}, {trials!r} and {concentration!r}."
        )
    # One row: all weight on the first model.
    alone = np.eye(1, num_models)
    if num_models == 1:
        return alone
    if num_models == 2:
        share = np.linspace(1.0, 0.0, trials)
        return np.stack([share, 1.0 - share], axis=1)
    drawn = Seeds(seed).numpy("merging coefficients").dirichlet(np.full(num_models, concentration), size=trials - 1)
    return np.concatenate([alone, drawn])


def search_coefficients(points: NDArray[np.float64], score: Callable[[tuple[float, ...]], float]) -> CoefficientSearch:
    """Return the best point, the first of equals.

    Args:
        points: ``[trials, num_models]``, at least one.
        score: Gives a finite number for a point, higher is better; on validation rows, never on test rows.

    Raises:
        ConfigError: If there is no point, or no score is finite.
    """
    weights = [tuple(float(value) for value in point) for point in points]
    scores = tuple(float(score(point)) for point in weights)
    usable = [value if math.isfinite(value) else -math.inf for value in scores]
    if not scores or max(usable) == -math.inf:
        raise ConfigError(f"None of the {len(scores)} coefficients gives a score that is finite. Look at the models and rows.")
    # The first of equals, so the target wins a tie.
    best = usable.index(max(usable))
    return CoefficientSearch(weights[best], scores[best], scores)

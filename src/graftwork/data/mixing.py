"""How often each data set is drawn from when several of different size are trained on together. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.data.names import did_you_mean
from graftwork.data.policies import POLICIES

__all__ = ["mixing_probabilities", "parse_mixing"]

_DEFAULT_TEMPERATURE = 2.0


def parse_mixing(mixing: str | float, temperature: float | None = None) -> str | float:
    """Return the name of a policy, or a temperature as a number of at least 1.

    Raises:
        ConfigError: If the policy is unknown or the temperature below 1.
    """
    if isinstance(mixing, str):
        if mixing not in POLICIES:
            raise ConfigError(
                f"mixing must be one of {', '.join(POLICIES)}, or a temperature of at least 1; got "
                f"{mixing!r}.{did_you_mean(mixing, POLICIES)}"
            )
        if mixing != "temperature":
            return mixing
        mixing = _DEFAULT_TEMPERATURE if temperature is None else temperature
    if isinstance(mixing, bool) or not np.isfinite(mixing) or mixing < 1:
        raise ConfigError(
            f"The mixing temperature must be a number of at least 1 (1 is proportional, large is uniform); "
            f"got {mixing!r}. 2 is usual."
        )
    return float(mixing)


def mixing_probabilities(counts: Sequence[int] | NDArray[np.int64], mixing: str | float = "proportional") -> NDArray[np.float64]:
    """Return the probability of each data set, ``[D]``: proportional to ``n ** (1 / T)``; T = 1 is proportional, T -> infinity
    uniform.

    Args:
        counts: Rows of each data set, at least one above 0; empty ones get 0.
        mixing: A policy or a temperature.

    Example:
        >>> mixing_probabilities([900, 100], 2.0).round(2).tolist()
        [0.75, 0.25]
    """
    policy = parse_mixing(mixing)
    sizes = np.asarray(counts, dtype=np.float64)
    if sizes.ndim != 1 or not (sizes >= 0).all() or not sizes.any():
        raise ConfigError(f"Data set sizes must be at least 0, and one above 0; got {list(counts)}.")
    if policy in ("uniform", "balanced", "round-robin"):
        weights = (sizes > 0).astype(np.float64)
    else:
        exponent = 1.0 if policy == "proportional" else 1.0 / float(policy)
        # Divided by the largest first: powers of counts stay within range.
        weights = np.where(sizes > 0, (sizes / sizes.max()) ** exponent, 0.0)
    return weights / weights.sum()

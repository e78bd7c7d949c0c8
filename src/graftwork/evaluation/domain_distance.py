"""How well a linear classifier tells two domains apart by their features.

Paper: Ben-David et al., "Analysis of Representations for Domain Adaptation", NeurIPS 2006; used so by Ganin et al.,
https://arxiv.org/abs/1505.07818.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require

__all__ = ["proxy_a_distance"]


def proxy_a_distance(source: NDArray[Any], target: NDArray[Any], *, seed: int = 0, scale_columns: bool = True) -> float:
    """Return the proxy A-distance ``2 (1 - 2 error)``: 0 where domains cannot be told apart, 2 where they always can.

    A logistic regression learns from half of the rows, and its error is that on the other half. As many rows of both domains
    are taken as the smaller one has. Errors above one half are chance and count as one half.

    Args:
        source: Features ``[N, D]``.
        target: Features ``[M, D]``.
        seed: Draws the rows and the halves.
        scale_columns: Whether each feature is scaled to a spread of 1 first, so that the least trace of the domain in a feature
            that hardly varies counts as much as any other. Otherwise all features are divided by one number, their common
            spread, and keep their own spreads, as they do for a layer that reads them.

    Raises:
        ConfigError: If a domain has fewer than four rows, or the features differ in width or are not finite.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if min(len(source), len(target)) < 4 or source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ConfigError(
            f"The distance of domains needs features [N, D] and [M, D] of at least 4 rows; got {source.shape} and {target.shape}."
        )
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ConfigError("The distance of domains needs finite features; some are NaN or infinite.")
    linear = require("sklearn.linear_model", extra="train", purpose="The proxy A-distance")
    random = np.random.default_rng(seed)
    # An even number, so that both halves are equal.
    size = min(len(source), len(target)) // 2 * 2
    drawn = [part[random.permutation(len(part))[:size]] for part in (source, target)]
    half = size // 2
    learned, tested = (np.concatenate([part[rows] for part in drawn]) for rows in (slice(0, half), slice(half, size)))
    domain = np.repeat([0, 1], half)
    # From the learned half only; the tested half must not help to scale itself.
    center, scale = learned.mean(axis=0), learned.std(axis=0)
    if not scale_columns:
        scale = np.full_like(scale, np.sqrt(np.square(scale).sum()))
    # A constant feature says nothing about the domain and would be divided by 0.
    scale[scale < 1e-12] = 1.0
    classifier = linear.LogisticRegression(max_iter=1000).fit((learned - center) / scale, domain)
    error = float((classifier.predict((tested - center) / scale) != domain).mean())
    # An error above one half is noise; the distance would be negative.
    return 2.0 * (1.0 - 2.0 * min(error, 0.5))

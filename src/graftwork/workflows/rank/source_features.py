"""Features of one source for the rows of a suite, for questions about data: which classes to keep, which tasks to label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.files import cache_folder
from graftwork.data.suite import Suite
from graftwork.training.feature_store import cached_features
from graftwork.workflows.rank.loading import load_source
from graftwork.workflows.rank.sources import RankSource, find_sources

__all__ = ["chosen_source", "features_of", "main_directions"]

Floats = NDArray[np.float64]


def chosen_source(asked: str, kinds: tuple[str, ...]) -> RankSource:
    """Return the source whose features are looked at: the first one that a user names or that is installed, else an untrained trunk.

    Raises:
        ConfigError: If a name is unknown or reads another kind of data.
    """
    untrained = RankSource("scratch", "untrained", kinds[0], "scratch", "Apache-2.0")
    if asked == "scratch":
        return untrained
    try:
        return find_sources(asked, kinds)[0][0]
    except ConfigError:
        # No pretrained backbone for this kind of data: what an untrained trunk sees is better than nothing.
        if asked != "all":
            raise
    return untrained


def features_of(source: RankSource, suite: Suite, *, seed: int, device: str = "cpu") -> Floats:
    """Return features ``[N, width]``, from the store or computed now on a device (``cpu``, ``cuda`` or ``mps``).

    Raises:
        GraftworkError: If the source cannot be loaded or cannot read the rows.
    """
    loaded = load_source(source, suite, seed=seed)
    return np.asarray(cached_features(loaded.backbone.to(device), loaded.arrays, cache_folder("features")), dtype=np.float64)


def main_directions(features: Floats, most: int) -> Floats:
    """Return standardised features along their main directions, ``[N, d]`` with ``d`` at most ``most``."""
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(
        spread > 1e-9 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf
    )
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    kept = min(most, int((sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-30)).sum()))
    if not kept:
        raise ConfigError("All rows have the same features: there is nothing to tell tasks or classes by.")
    return np.asarray(left[:, :kept] * np.sqrt(len(features)))

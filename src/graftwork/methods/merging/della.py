"""DELLA: drop entries at random, small ones more often than large ones of the same row (MagPrune).

Paper: Deep, Bhardwaj and Poria, "DELLA-Merging", 2024, https://arxiv.org/abs/2406.11617 (section 3.1); ``density`` is ``1 - p``,
``epsilon`` half of the paper's window: probabilities of keeping go from ``density - epsilon`` for the smallest entry of a row to
``density + epsilon`` for its largest, evenly by rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.methods.merging.sparse_changes import Array, Elect, PerModel, Rescale, SparseChanges, each, of_model

__all__ = ["DellaMerger", "keep_probabilities"]


class DellaMerger(SparseChanges):
    """See :class:`.SparseChanges`; what is dropped depends on the seed, the tensor's name, the model's place and the ranks.

    Args:
        density: Mean share of the entries that is kept.
        epsilon: Half the window of probabilities, at least 0; ``density - epsilon`` and ``density + epsilon`` lie in (0, 1).
        scaling: Factor on the merged change.
        weights: Weight of each model; None weighs all by 1.
        elect: Whether signs are elected, as in the paper.
        normalize: Whether the sum is divided by the weights of the models that agree, as in the paper.
        rescale: ``"probability"`` is the paper's.
        seed: Draws what is dropped.

    Raises:
        ConfigError: If a number is out of range.
    """

    method = "della"

    def __init__(
        self,
        *,
        density: PerModel = 0.5,
        epsilon: PerModel = 0.15,
        scaling: float = 1.0,
        weights: Sequence[float] | None = None,
        elect: Elect = "sum",
        normalize: bool = True,
        rescale: Rescale = "probability",
        seed: int = 0,
    ) -> None:
        super().__init__(density=density, scaling=scaling, weights=weights, elect=elect, normalize=normalize, rescale=rescale)
        for number in range(max(len(each(density)), len(each(epsilon)))):
            share, window = of_model(density, number), of_model(epsilon, number)
            # With density 1 nothing is dropped, and the window is not used.
            if share < 1.0 and not (window >= 0.0 and share - window > 0.0 and share + window < 1.0):
                raise ConfigError(
                    f"`epsilon` must be at least 0, with density - epsilon above 0 and density + epsilon below 1; got {window!r} "
                    f"with density {share!r}."
                )
        self.epsilon, self.seed = epsilon, seed

    def keep(self, change: Array, name: str, number: int) -> Array:
        """Return one over the probability of keeping for the entries that are kept."""
        probability = keep_probabilities(change, of_model(self.density, number), of_model(self.epsilon, number))
        drawn = Seeds(self.seed).numpy(f"della {name} {number}").random(change.shape, dtype="float32")
        kept: Array = np.where(drawn < probability, 1.0 / probability, 0.0).astype(change.dtype)
        return kept

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {**super().settings(), "epsilon": self.epsilon, "seed": self.seed}


def keep_probabilities(change: Array, density: float, epsilon: float) -> Array:
    """Return the probability with which each entry is kept.

    Args:
        change: A vector is one row; of tensors with more dimensions ranks are along the second one, as in mergekit.
        density: Mean probability.
        epsilon: Half the window.

    Example:
        >>> keep_probabilities(np.array([3.0, -1.0, 2.0]), 0.5, 0.2).round(3).tolist()
        [0.7, 0.3, 0.5]
    """
    rows = change[None] if change.ndim < 2 else change
    if change.ndim == 0:
        return np.full(change.shape, density)
    count = rows.shape[1]
    # The rank of the rank: argsort of argsort; stable, so that ties go by place.
    ranks = np.abs(rows).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    # A row of one entry has no smallest and largest.
    share = ranks / (count - 1) if count > 1 else np.full(rows.shape, 0.5)
    return np.asarray(density - epsilon + 2.0 * epsilon * share).reshape(change.shape)

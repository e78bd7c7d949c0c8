"""Model breadcrumbs and magnitude pruning: of each change, the largest entries are outliers, and the smallest ones noise.

Paper: Davari and Belilovsky, "Model Breadcrumbs", ECCV 2024, https://arxiv.org/abs/2312.06795 (section 3.2, layer by layer);
``density`` is the share that is kept (``1 - beta - gamma`` of the paper), ``gamma`` the share of the largest that is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.sparse_changes import Array, Elect, PerModel, Rescale, SparseChanges, each, kept_largest, of_model

__all__ = ["BreadcrumbsMerger", "MagnitudeMerger"]


class BreadcrumbsMerger(SparseChanges):
    """See :class:`.SparseChanges`.

    Args:
        density: Share of the entries that is kept. Where ``density + gamma`` is above 1, fewer outliers are dropped.
        gamma: Share of the largest entries that is dropped, in [0, 1).
        scaling: Factor on the merged change.
        weights: Weight of each model; None weighs all by 1.
        elect: Whether signs are elected.
        normalize: Whether the sum is divided by the weights.
        rescale: ``"norm"`` gives each change its old size; ``"probability"`` is as ``"none"``, since nothing is drawn.

    Raises:
        ConfigError: If a number is out of range.
    """

    method = "breadcrumbs"

    def __init__(
        self,
        *,
        density: PerModel = 0.9,
        gamma: PerModel = 0.01,
        scaling: float = 1.0,
        weights: Sequence[float] | None = None,
        elect: Elect = "none",
        normalize: bool = False,
        rescale: Rescale = "none",
    ) -> None:
        super().__init__(density=density, scaling=scaling, weights=weights, elect=elect, normalize=normalize, rescale=rescale)
        for share in each(gamma):
            if not 0.0 <= share < 1.0:
                raise ConfigError(f"`gamma` must be at least 0 and below 1 (0.01 drops the largest 1 %); got {share!r}.")
        self.gamma = gamma

    def keep(self, change: Array, name: str, number: int) -> Array:
        """Return 1 for the entries between the outliers and the small ones."""
        count = int(of_model(self.density, number) * change.size)
        return kept_largest(change, count, min(int(of_model(self.gamma, number) * change.size), change.size - count))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {**super().settings(), "gamma": self.gamma}


class MagnitudeMerger(SparseChanges):
    """Keeps the largest entries of each tensor's change, at least one; with an election it is TIES per tensor, as in mergekit.

    Args:
        density: Share of the entries that is kept.
        scaling: Factor on the merged change.
        weights: Weight of each model; None weighs all by 1.
        elect: Whether signs are elected.
        normalize: Whether the sum is divided by the weights.
        rescale: See :class:`BreadcrumbsMerger`.
    """

    method = "magnitude-prune"

    def __init__(
        self,
        *,
        density: PerModel = 0.2,
        scaling: float = 1.0,
        weights: Sequence[float] | None = None,
        elect: Elect = "none",
        normalize: bool = False,
        rescale: Rescale = "none",
    ) -> None:
        super().__init__(density=density, scaling=scaling, weights=weights, elect=elect, normalize=normalize, rescale=rescale)

    def keep(self, change: Array, name: str, number: int) -> Array:
        """Return 1 for the largest entries."""
        return kept_largest(change, max(1, int(of_model(self.density, number) * change.size)))

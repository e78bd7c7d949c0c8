"""DARE: drop entries of each change at random, and rescale the others so that the expected change stays.

Paper: Yu et al., "Language Models are Super Mario", ICML 2024, https://arxiv.org/abs/2311.03099 (section 3.2); ``density`` is
``1 - p`` of the paper. With ``elect="sum"`` it is DARE + TIES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.seeds import Seeds
from graftwork.methods.merging.sparse_changes import Array, Elect, PerModel, Rescale, SparseChanges, of_model

__all__ = ["DareMerger"]


class DareMerger(SparseChanges):
    """See :class:`.SparseChanges`; which entries are dropped depends on the seed, the tensor's name and the model's place alone.

    Args:
        density: Share of the entries that is kept.
        scaling: Factor on the merged change.
        weights: Weight of each model; None weighs all by 1.
        elect: Whether signs are elected.
        normalize: Whether the sum is divided by the weights.
        rescale: ``"probability"`` is the paper's.
        seed: Draws what is dropped.
    """

    method = "dare"

    def __init__(
        self,
        *,
        density: PerModel = 0.5,
        scaling: float = 1.0,
        weights: Sequence[float] | None = None,
        elect: Elect = "none",
        normalize: bool = False,
        rescale: Rescale = "probability",
        seed: int = 0,
    ) -> None:
        super().__init__(density=density, scaling=scaling, weights=weights, elect=elect, normalize=normalize, rescale=rescale)
        self.seed = seed

    def keep(self, change: Array, name: str, number: int) -> Array:
        """Return ``1 / density`` for a share ``density`` of the entries, drawn at random."""
        drawn = Seeds(self.seed).numpy(f"dare {name} {number}").random(change.shape, dtype="float32")
        density = of_model(self.density, number)
        return (drawn < density) * change.dtype.type(1.0 / density)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {**super().settings(), "seed": self.seed}

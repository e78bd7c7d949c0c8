"""Weight averaging: the (weighted) mean of tuned models.

Paper: Wortsman et al., "Model soups", ICML 2022, https://arxiv.org/abs/2203.05482 (the uniform soup).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger

__all__ = ["AveragingMerger"]


class AveragingMerger(Merger):
    """Mean of the experts; the base only gives shapes.

    Args:
        weights: Weight of each model, normalised to sum 1; None weighs all equally.
    """

    def __init__(self, *, weights: Sequence[float] | None = None) -> None:
        if weights is not None and (any(weight < 0 for weight in weights) or sum(weights) <= 0):
            raise ConfigError(f"`weights` must be at least 0 and not all 0; got {tuple(weights)!r}.")
        self.weights = None if weights is None else tuple(weight / sum(weights) for weight in weights)

    def merge_tensor(self, name: str, base: NDArray[Any], experts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the mean in float32 or wider."""
        weights = self.weights or (1.0 / len(experts),) * len(experts)
        first = TaskArithmeticMerger(scaling=1.0, weights=weights[1:])
        # written as first + sum_i w_i (x_i - first): exact when all models are equal, and one code path with task arithmetic
        return (
            np.asarray(first.merge_tensor(name, experts[0], experts[1:]))
            if len(experts) > 1
            else np.array(experts[0], np.float32)
        )

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "averaging", "weights": self.weights}

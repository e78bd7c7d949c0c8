"""Weight averaging: the (weighted) mean of tuned models.

Paper: Wortsman et al., "Model soups", ICML 2022, https://arxiv.org/abs/2203.05482 (the uniform soup).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import add_changes, check_weights

__all__ = ["AveragingMerger"]


class AveragingMerger(Merger):
    """Mean of the experts; the base only gives shapes. The mean of equal models is that model, bit for bit.

    Args:
        weights: Weight of each model, at least 0, normalised to sum 1; None weighs all equally.
        normalize: False takes ``sum_i weight_i * expert_i`` as it is: any weights, 1 each by default.

    Raises:
        ConfigError: If a weight is not finite, or, of a mean, negative, or all are 0.
    """

    needs_base: ClassVar[bool] = False

    def __init__(self, *, weights: Sequence[float] | None = None, normalize: bool = True) -> None:
        check_weights(weights)
        if weights is not None and normalize and (any(weight < 0 for weight in weights) or sum(weights) <= 0):
            raise ConfigError(
                f"`weights` must be at least 0 and not all 0; got {tuple(weights)!r}. For a sum with any weights set "
                "normalize to false."
            )
        self.normalize = normalize
        divisor = sum(weights) if weights is not None and normalize else 1.0
        self.weights = None if weights is None else tuple(weight / divisor for weight in weights)

    def merge_tensor(self, name: str, base: NDArray[Any], experts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the mean in the widest type of the experts, float32 at least."""
        check_weights(self.weights, len(experts))
        weights = self.weights or (1.0 / len(experts) if self.normalize else 1.0,) * len(experts)
        dtype = np.result_type(np.float32, *(expert.dtype for expert in experts))
        if not self.normalize:
            return add_changes(np.zeros(experts[0].shape, dtype), experts, weights, dtype)
        # written as first + sum_i w_i (x_i - first): exact when all models are equal, or only one has a weight
        # The largest weight: its model is written as it is, and the differences of the others are scaled by smaller factors.
        first = max(range(len(experts)), key=lambda index: weights[index])
        others = [index for index, weight in enumerate(weights) if index != first and weight > 0.0]
        return add_changes(experts[first], [experts[index] for index in others], [weights[index] for index in others], dtype)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "averaging", "weights": self.weights, "normalize": self.normalize}

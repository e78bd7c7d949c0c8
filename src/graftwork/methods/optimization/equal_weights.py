"""Equal weights: the sum of the task losses, optionally with fixed weights.

Kurin et al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022,
https://arxiv.org/abs/2201.04122, is why this is the default and the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import WeightBalancer
from graftwork.interfaces.binding import Binding

__all__ = ["EqualWeights"]


class EqualWeights(WeightBalancer):
    """Sum of the losses times fixed weights.

    Args:
        weights: One weight per task, at least 0; None takes 1 for each.

    Raises:
        ValueError: If a weight is negative, or their number is not that of the losses.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        if weights is not None and any(weight < 0 for weight in weights):
            raise ValueError(f"`weights` must be at least 0; got {list(weights)}.")
        self._fixed = None if weights is None else tuple(weights)
        self._weights: Tensor | None = None

    def bind(self, binding: Binding) -> None:
        """Check the number of weights.

        Raises:
            ConfigError: If it is not that of the tasks.
        """
        if self._fixed is not None and len(self._fixed) != len(binding.tasks):
            raise ConfigError(
                f"`weights` has {len(self._fixed)} entries for {len(binding.tasks)} tasks "
                f"({', '.join(task.name for task in binding.tasks)}); "
                "give one weight per task."
            )

    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sum and the weights ``[T]``."""
        weights = self._weights
        if weights is None or weights.shape != losses.shape or weights.device != losses.device or weights.dtype != losses.dtype:
            if self._fixed is not None and len(self._fixed) != len(losses):
                raise ValueError(f"`weights` has {len(self._fixed)} entries for {len(losses)} tasks; give one weight per task.")
            weights = losses.detach().new_ones(len(losses)) if self._fixed is None else losses.detach().new_tensor(self._fixed)
            self._weights = weights
        # A plain sum, whose rounding a product with ones need not share.
        return (losses.sum() if self._fixed is None else losses @ weights), weights

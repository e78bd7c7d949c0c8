"""Nash-MTL with its bargaining problem solved to the end.

Navon et al., "Multi-Task Learning as a Bargaining Game", https://arxiv.org/abs/2202.01017. The published code, and torchjd after
it, approach the solution by a few rounds of convex programs that start at the last weights; where their sum makes a task worse
they may find no step and keep it. Here Newton's method finds the solution itself (see :mod:`graftwork.math.bargaining`), more
than a hundred times faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.math.bargaining import bargaining_weights
from graftwork.methods.optimization.aggregator import WeightedAggregator

__all__ = ["ExactNashMTL"]


class ExactNashMTL(WeightedAggregator):
    """The bargaining solution, shortened to a greatest length.

    Args:
        max_norm: Greatest length of the direction; longer ones are shortened to it. 0 leaves them as they are: ``sqrt(T)`` for
            any gradients.
        update_weights_every: Steps for which weights are kept, at least 1.

    Raises:
        ConfigError: If a setting is out of its range.

    Example:
        >>> weights = ExactNashMTL(max_norm=0.0).weights(torch.tensor([[4.0, 0.0], [0.0, 0.25]]))
        >>> [round(weight, 6) for weight in weights.tolist()]
        [0.5, 2.0]
    """

    def __init__(self, max_norm: float = 1.0, update_weights_every: int = 1) -> None:
        if max_norm < 0:
            raise ConfigError(f"`max_norm` of Nash-MTL must be at least 0; got {max_norm!r}.")
        if update_weights_every < 1:
            raise ConfigError(f"`update_weights_every` of Nash-MTL must be at least 1; got {update_weights_every!r}.")
        self.max_norm = max_norm
        self.update_weights_every = update_weights_every
        self._steps = 0
        self._solution: Tensor | None = None
        self._known: Tensor | None = None

    def weigh(self, statistic: Tensor, present: Tensor) -> Tensor:
        """Return the weights ``[T]``; kept weights serve only batches that label the same tasks."""
        # Weights are kept by position among the present tasks: with other labels they would go to the wrong tasks.
        same = self._solution is not None and self._known is not None and torch.equal(self._known, present.cpu())
        if not same:
            self._steps = 0
        self._known = present.cpu()
        return super().weigh(statistic, present)

    def weights(self, statistic: Tensor) -> Tensor:
        """Return the weights ``[T]`` from the inner products ``[T, T]``."""
        if self._solution is None or self._steps % self.update_weights_every == 0 or len(self._solution) != len(statistic):
            self._solution = torch.from_numpy(bargaining_weights(statistic.detach().cpu().double().numpy()))
        self._steps += 1
        weights = self._solution.to(statistic.device)
        # |w J|^2 = w G w: the direction's length without the direction.
        length = float((weights @ statistic.double() @ weights).clamp(min=0.0).sqrt())
        if 0 < self.max_norm < length:
            weights = weights * (self.max_norm / length)
        return weights.to(statistic.dtype)

    def reset(self) -> None:
        """Forget kept weights."""
        self._steps, self._solution, self._known = 0, None, None

    def state_dict(self) -> dict[str, Any]:
        """Return the kept weights and their age."""
        if self._solution is None or self._known is None:
            return {}
        return {"steps": self._steps, "solution": self._solution.clone(), "known": self._known.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.reset()
        if state:
            self._steps, self._solution, self._known = int(state["steps"]), state["solution"].clone(), state["known"].clone()

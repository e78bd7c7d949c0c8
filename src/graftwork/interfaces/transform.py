"""GradientTransform: changes the gradients after the balancer wrote them and before the optimiser reads them.

The pipeline of a step is: per-task gradients, aggregator (both inside the balancer), transforms, optimiser. A transform knows
nothing of tasks' losses and works after every balancer; several run in the order of the plan. Once per optimiser step, however
many passes made the gradient.

How the hardest systems fit:

- Annealed gradient noise needs random numbers and a counter of its own that survive a restart: ``bind`` brings a seed from the
  run's root
  seed, and ``state_dict`` keeps generator and counter. Noise must not be clipped away: ``after_clipping`` is a property of the
  transform, so the order is decided where the method is written, not in the loop.
- Noise on the trunk but not on heads, or the other way round: :class:`GradientContext` says which parameters are shared and
  whose the others are.
- Memory per parameter (a mask, a moving average) belongs in ``state_dict``, by position in ``context.learned``, whose order is
  that of the optimiser and never changes.
- Several processes: each holds the same averaged gradient, seed and counter, so that all draw the same noise and stay equal.
- Differentially private training clips the gradient of each *sample*, which is lost once they are summed: only its noise is a
  transform.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from graftwork.interfaces.binding import Binding

__all__ = ["GradientContext", "GradientTransform"]


@dataclass(frozen=True, slots=True)
class GradientContext:
    """Whose gradients they are."""

    learned: Sequence[nn.Parameter]
    """All parameters that the optimiser moves, those of balancers and objectives included; the order never changes."""
    shared: Sequence[nn.Parameter]
    """Those of them that several tasks use."""
    owned: Sequence[Sequence[nn.Parameter]]
    """Per task: those that only this task uses."""
    step: int
    """Number of finished optimiser steps."""


class GradientTransform(ABC):
    """Changes ``.grad`` in place."""

    after_clipping: bool = True
    """Whether it sees clipped gradients and is not clipped itself; otherwise it comes first and the clipping sees its result."""

    @abstractmethod
    def apply(self, context: GradientContext) -> None:
        """Change ``.grad`` of the parameters, without a graph; a parameter without a gradient (None) stays so.

        Args:
            context: The parameters.
        """

    def bind(self, binding: Binding) -> None:
        """Take model, tasks, facts about the data, device and the seed of the transform's own random numbers; called once,
        before the first step.

        Raises:
            ConfigError: If the transform cannot work with them.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values that :meth:`load_state_dict` restores, for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""

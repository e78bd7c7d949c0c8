r"""Uncertainty weighting: every task's loss is divided by a learned variance.

Paper: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR
2018, https://arxiv.org/abs/1705.07115. With :math:`s = \log \sigma^2` learned for each task (the paper's stable form):

- regression, equation 7: :math:`\tfrac12 e^{-s} L + \tfrac12 s`;
- classification, equation 10 with its approximation: :math:`e^{-s} L + \tfrac12 s`.

The second is the first with :math:`s` moved by :math:`\log 2`, up to a constant: the kind of a task decides where its weight
starts (a half, or one), not what is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import WeightBalancer
from graftwork.interfaces.binding import Binding

__all__ = ["UncertaintyWeighting"]

Form = Literal["regression", "classification"]


class UncertaintyWeighting(WeightBalancer):
    """Learns one log-variance per task along with the model.

    A task without labels in a batch (loss exactly 0) is left out, or its variance would shrink with nothing to hold it.

    Args:
        forms: ``regression`` or ``classification`` for each task; None takes the classification form for all, so that training
            starts from the plain sum.
        initial_log_variance: :math:`s` before the first step.
        max_tasks: Room for so many tasks, because a plan is built before its data are known; entries without a task never change.
            Binding to more tasks makes room for them.

    Raises:
        ConfigError: If a form is unknown, or ``max_tasks`` is below 1.
    """

    def __init__(self, forms: Sequence[Form] | None = None, *, initial_log_variance: float = 0.0, max_tasks: int = 64) -> None:
        unknown = [form for form in forms or () if form not in ("regression", "classification")]
        if unknown:
            raise ConfigError(f"`forms` holds 'regression' or 'classification' for each task; got {unknown[0]!r}.")
        if max_tasks < 1:
            raise ConfigError(f"`max_tasks` must be at least 1; got {max_tasks}.")
        self._initial = float(initial_log_variance)
        self._factors = None if forms is None else torch.tensor([0.5 if form == "regression" else 1.0 for form in forms])
        self.log_variance = nn.Parameter(torch.full((max_tasks,), self._initial))
        """:math:`s` of each task, ``[max_tasks]``."""

    def bind(self, binding: Binding) -> None:
        """Make room for all tasks, and move the log-variances to the losses' device.

        Raises:
            ConfigError: If ``forms`` do not fit the tasks.
        """
        found, missing = self.log_variance.data, len(binding.tasks) - len(self.log_variance)
        if missing > 0:
            found = torch.cat([found, found.new_full((missing,), self._initial)])
        # Through `.data`: the optimiser may hold this parameter already.
        self.log_variance.data = found.to(binding.device)
        self._check(len(binding.tasks))

    def _check(self, num_tasks: int) -> None:
        if self._factors is not None and len(self._factors) != num_tasks:
            raise ConfigError(f"`forms` has {len(self._factors)} entries for {num_tasks} tasks; give one per task.")
        if num_tasks > len(self.log_variance):
            raise ConfigError(f"`max_tasks` is {len(self.log_variance)}, but there are {num_tasks} tasks; raise it.")

    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the weighted losses and the log-variances' terms, and the weights ``[T]``."""
        self._check(len(losses))
        log_variance = self.log_variance[: len(losses)]
        weights = torch.exp(-log_variance)
        if self._factors is not None:
            weights = weights * self._factors.to(weights)
        labelled = losses.detach() != 0
        # Without this an absent task's s falls at a constant rate, since d/ds of s / 2 is 1 / 2 and no loss answers it.
        terms = weights * losses + torch.where(labelled, 0.5 * log_variance, torch.zeros_like(log_variance))
        return terms.sum(), weights

    def parameters(self) -> list[nn.Parameter]:
        """Return the log-variances."""
        return [self.log_variance]

    def reset(self) -> None:
        """Set all log-variances to where they started."""
        with torch.no_grad():
            self.log_variance.fill_(self._initial)
        self.log_variance.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the log-variances."""
        return {"log_variance": self.log_variance.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        with torch.no_grad():
            self.log_variance.copy_(state["log_variance"])

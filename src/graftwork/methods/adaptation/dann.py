"""DANN: features that serve the labels of the source, and from which a classifier cannot tell source from target.

Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", https://arxiv.org/abs/1505.07818.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.batch import UNLABELLED
from graftwork.core.errors import ConfigError
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.nn.adversarial import DomainClassifier, pool_features, ramp_up, reverse_gradient
from graftwork.nn.representation import representation_of

__all__ = ["DomainAdversarial"]

Schedule = Literal["ramp", "constant"]


class DomainAdversarial(Objective):
    """A domain classifier on the shared representation, behind a gradient reversal.

    Labelled rows of a batch are the source, rows without labels the target: the plan asks for both with ``quotas``. The term is
    the classifier's mean cross-entropy on the source plus that on the target. The classifier descends it whole; what made the
    features ascends it, scaled by the strength, so that one backward pass trains both. Predictions never touch the classifier.

    Args:
        strength: Highest factor on the reversed gradient, at least 0; 0 trains the classifier beside the model and leaves the
            model alone.
        schedule: ``ramp`` lets the strength grow from 0 over the horizon, ``constant`` has it whole from the first step.
        sharpness: How soon ``ramp`` rises, above 0.
        hidden: Widths of the classifier's hidden layers; empty gives a linear one.
        dropout: Probability of dropping a hidden unit of the classifier, in [0, 1).

    Raises:
        ConfigError: If a setting is out of range; all problems at once.
    """

    def __init__(
        self,
        strength: float = 1.0,
        *,
        schedule: Schedule = "ramp",
        sharpness: float = 10.0,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
    ) -> None:
        problems = []
        if not strength >= 0:
            problems.append(f"strength must be at least 0; got {strength!r}.")
        if schedule not in get_args(Schedule):
            problems.append(f"schedule must be one of {', '.join(get_args(Schedule))}; got {schedule!r}.")
        if not sharpness > 0:
            problems.append(f"sharpness must be above 0; got {sharpness!r}.")
        if any(width < 1 for width in hidden):
            problems.append(f"hidden must be widths of at least 1; got {list(hidden)!r}.")
        if not 0 <= dropout < 1:
            problems.append(f"dropout must be in [0, 1); got {dropout!r}.")
        if problems:
            raise ConfigError("The domain-adversarial objective cannot be used.", problems)
        self.max_strength, self.schedule, self.sharpness = float(strength), schedule, float(sharpness)
        self.hidden, self.dropout = tuple(hidden), float(dropout)
        self._horizon = 1

    def bind(self, binding: Binding) -> None:
        """Make the classifier for the model's representation.

        Raises:
            ConfigError: If no unlabelled rows are drawn, or the model shares no representation.
        """
        if not sum(binding.facts.unlabelled):
            raise ConfigError(
                "Domain-adversarial training needs rows of the target without labels, and the training draws none. "
                "Ask for them in the plan: training.quotas = [{role = 'labelled', rows = 64}, {role = 'unlabelled', rows = 64}]."
            )
        features = representation_of(binding.model, binding.example.to(binding.device))
        if features is None:
            raise ConfigError(
                "Domain-adversarial training needs one representation that all tasks share, and the model has none. "
                "Choose a sharing method with a shared trunk."
            )
        # The number of steps of the whole training: the ramp runs over it.
        self._horizon = binding.facts.horizon
        self.module = DomainClassifier(pool_features(features).shape[1], hidden=self.hidden, dropout=self.dropout)

    def strength(self, step: int) -> float:
        """Return the factor on the reversed gradient after ``step`` finished steps."""
        if self.schedule == "constant":
            return self.max_strength
        return self.max_strength * ramp_up(step / self._horizon, self.sharpness)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the classifier's loss on source plus target; a domain that is missing in the batch counts nothing."""
        assert self.module is not None, "bind comes first"
        assert inputs.representation is not None, "bind has looked"
        reversed_features = reverse_gradient(pool_features(inputs.representation), self.strength(inputs.step))
        logits = self.module(reversed_features).squeeze(1)
        is_target = inputs.batch.role == UNLABELLED
        # [B]
        losses = F.binary_cross_entropy_with_logits(logits, is_target.to(logits.dtype), reduction="none")
        # Masked, not picked out: shapes never depend on how many rows of each domain a batch holds.
        sums = torch.stack([losses.masked_fill(is_target, 0.0).sum(), losses.masked_fill(~is_target, 0.0).sum()])
        counts = torch.stack([(~is_target).sum(), is_target.sum()])
        return (sums / counts.clamp(min=1)).sum()

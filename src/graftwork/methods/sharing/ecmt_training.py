r"""Training of ECMT: sampled configurations beside the full network, and distillation that makes their features alike.

Paper: Aich et al., "Efficient Controllable Multi-Task Architectures", ICCV 2023, https://arxiv.org/abs/2308.11744. In each step
the loop runs the full network and its task losses; this objective adds, for ``num_random`` random configurations :math:`c` and
the smallest one,
:math:`\sum_t L_t(c) + \lambda \, \lVert \mathrm{norm}(F_c) - \mathrm{sg}(\mathrm{norm}(F_*)) \rVert^2`: the task losses and
configuration-invariant distillation (CI-KD). It acts on the *encoder's* features, not on predictions, so that any decoder fits
any encoder. The parent's features :math:`F_*` are detached: it teaches and never follows.

What the paper leaves open to us (its body was not read): the slim features have fewer channels than the parent's. By default a
learned projection for each width, dropped after training, takes them to the full width; ``distill="leading"`` compares the
leading channels. Features are normed over the channels at each place. Configurations are drawn evenly, two in a step, and the
smallest one is always among them, as for slimmable networks (Yu and Huang, "Universally Slimmable Networks and Improved Training
Techniques", ICCV 2019).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.controllable import Configuration
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.methods.sharing.ecmt import ECMT
from graftwork.tasks.losses import task_loss

__all__ = ["ConfigurationTraining", "feature_distance", "sample_configurations"]


class ConfigurationTraining(Objective):
    """The losses of sampled configurations, added to those of the full network.

    Args:
        num_random: Random configurations in a step, at least 0.
        smallest: Whether the smallest configuration is run in every step.
        distill_weight: Factor of CI-KD, at least 0; 0 leaves it out.
        distill: ``projection`` compares at the full width, ``leading`` compares the channels that both have.
        common_ratio: Draw one ratio for encoder and decoders together (a plain slimmable network, for comparison).
        seed: Of the draws; they depend on it and on the step alone.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        num_random: int = 2,
        smallest: bool = True,
        distill_weight: float = 1.0,
        distill: Literal["projection", "leading"] = "projection",
        common_ratio: bool = False,
        seed: int = 0,
    ) -> None:
        if num_random < 0 or not distill_weight >= 0:
            raise ConfigError(f"`num_random` and `distill_weight` are at least 0; got {num_random!r} and {distill_weight!r}.")
        if distill not in ("projection", "leading"):
            raise ConfigError(f"`distill` is projection or leading; got {distill!r}.")
        self.num_random, self.smallest, self.seed = int(num_random), bool(smallest), int(seed)
        self.distill_weight, self.distill, self.common_ratio = float(distill_weight), distill, bool(common_ratio)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the sum over the step's configurations of task losses and distillation.

        Raises:
            ConfigError: If the model is no ECMT.
        """
        model, parent = inputs.model, inputs.representation
        if not isinstance(model, ECMT) or parent is None:
            raise ConfigError(
                f"ConfigurationTraining trains the widths of an ECMT network; this plan shares by {type(model).__name__}. "
                "Set `sharing` to graftwork.methods.sharing.ecmt:ECMT."
            )
        batch = inputs.batch
        total = inputs.losses.new_zeros(())
        # From the step, not from a running stream: a resumed run draws the same configurations.
        random = np.random.default_rng([self.seed, inputs.step])
        for configuration in sample_configurations(
            model, random, self.num_random, smallest=self.smallest, common_ratio=self.common_ratio
        ):
            with model.configured(configuration):
                is_full = configuration.encoder == 1.0
                # The loop has run the full encoder already.
                features = parent if is_full else model.encode(batch.inputs)
                outputs = model.decode(features)
                losses = [task_loss(task, outputs[task.name], batch.targets[task.name]) for task in model.tasks]
                total = total + torch.stack(losses).sum()
                if self.distill_weight > 0 and not is_full:
                    wide = model.project(features) if self.distill == "projection" else features
                    total = total + self.distill_weight * feature_distance(wide, parent)
        return total


def sample_configurations(
    model: ECMT, random: np.random.Generator, num_random: int, *, smallest: bool = True, common_ratio: bool = False
) -> list[Configuration]:
    """Draw the configurations of a step: ``num_random`` with every ratio drawn evenly, and the smallest one."""
    ratios, names = model.ratios, model.task_names
    found = []
    for _ in range(num_random):
        drawn = [ratios[index] for index in random.integers(0, len(ratios), size=1 + len(names))]
        if common_ratio:
            found.append(model.uniform(drawn[0]))
        else:
            found.append(Configuration(drawn[0], dict(zip(names, drawn[1:], strict=True))))
    return [*found, model.uniform(ratios[0])] if smallest else found


def feature_distance(features: Tensor, parent: Tensor) -> Tensor:
    """Return the mean squared distance between normed features, in ``[0, 4]``; no gradient reaches ``parent``.

    Args:
        features: ``[B, c, ...]``.
        parent: ``[B, C, ...]`` with ``C >= c``; its leading ``c`` channels count.
    """
    # After a ReLU a place can be zero in all channels, and the gradient there is 1 / eps: larger than the default 1e-12.
    target = F.normalize(parent.detach()[:, : features.shape[1]], dim=1, eps=1e-6)
    return (F.normalize(features, dim=1, eps=1e-6) - target).square().sum(dim=1).mean()

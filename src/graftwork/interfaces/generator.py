"""Generator: draws what a trained model has learned to generate, given a condition or nothing.

How it is trained is no part of the seam: a generator is the model of a :class:`~graftwork.interfaces.train_step.TrainStep`.

How the hardest systems fit:

- Several outputs of one model (a stain and the mask of its cells, text and pictures of one network): ``outputs`` names them, and
  ``sample`` draws only those that are asked for. What was learned beside them only to help (a mask) is an output, never an input.
- Conditions of several kinds (a picture, an instruction, reference pictures with masks, panels that are given) are inputs by
  name; ``condition_names`` says which ones are read. A model that generates from nothing has none, and takes the number of rows
  from ``count``.
- Guidance scales, steps and temperatures of a sampler are settings of the generator, not arguments of ``sample``: whoever samples
  need not know which sampler it is. Guidance runs the network on more rows inside ``sample``.
- Text of different lengths is int64 ``[B, L]`` with 0 behind its end, as inputs are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["Generator"]


class Generator(ABC):
    """A model that draws samples; usually an ``nn.Module`` too, in evaluation mode when it samples."""

    outputs: tuple[str, ...]
    """Names of what it can draw, the main one first."""
    condition_names: tuple[str, ...]
    """Names of the inputs that :meth:`sample` reads; nothing else that is handed in changes what is drawn."""

    @abstractmethod
    def sample(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str] | None = None,
        *,
        count: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw one sample for each row.

        Global random generators stay as they are where ``generator`` is given, and no gradient is kept.

        Args:
            inputs: The condition by name, first dimension ``B``, in the layout of the suite's inputs.
            outputs: Names of :attr:`outputs`; None draws the main one.
            count: Number of rows where there is no condition.
            generator: What random numbers are drawn from; equal states give equal samples. A CPU generator.

        Returns:
            ``{name: Tensor}`` with first dimension ``B``, in the units of the suite's targets.

        Raises:
            ConfigError: If an input is missing, an output is unknown, or there is neither condition nor ``count``.
        """

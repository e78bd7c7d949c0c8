"""TrainStep: what one step of a training computes. The loop knows nothing else of what is trained: no tasks, no labels, no
losses' meaning.

The loop (``training.loop``) owns the optimiser, the schedule, clipping, averaged weights, the watch for divergence, callbacks,
checkpoints and the run's own
random stream. In one step it calls, in this order: ``source.batch``, :meth:`TrainStep.backward`,
:meth:`TrainStep.before_clipping`, clipping,
:meth:`TrainStep.after_clipping`, the optimiser, :meth:`TrainStep.finish`.

How the hardest systems fit:

- Many tasks with a balancer, extra losses and gradient transforms: ``training.multitask``; balancers make several passes inside
  ``backward``.
- Denoising, diffusion, masked modelling: ``backward`` draws noise and noise levels from torch's global generator, which is the
  run's own stream while the loop runs; a resumed run draws the same numbers.
- A momentum teacher (self-supervised contrast) is one of :meth:`TrainStep.modules` and follows the model in ``finish``. A
  teacher that never changes
  is a plain attribute: it belongs in no checkpoint.
- Reinforcement learning: the source acts with the model and hands out what it saw; what it remembers (a replay buffer) goes
  through the step's ``state_dict``, so that a source must not draw from generators of its own that nobody saves.
- Adversarial training alternates inside ``backward`` through a reversed gradient. Two optimisers with schedules of their own are
  not supported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from graftwork.core.seeds import Seeds

__all__ = ["BatchSource", "TrainStep"]

BatchT = TypeVar("BatchT")
BatchOut = TypeVar("BatchOut", covariant=True)


class BatchSource(Protocol[BatchOut]):
    """Where a loop takes its batches from."""

    def batch(self, step: int) -> BatchOut:
        """Return the batch of ``step`` (0 is the first), on the device of the model. Best a pure function of ``step``: such a
        source needs no state."""


class TrainStep(ABC, Generic[BatchT]):
    """Gradients of one batch, and whatever has to be remembered from step to step."""

    model: nn.Module
    """What is trained. The loop moves it to the device, sets it to training mode, averages its weights, and saves what learns in
    it."""
    loss_names: tuple[str, ...]
    """Names of the losses that :meth:`backward` returns, in order; the error about a divergence names them."""

    def prepare(self, seeds: Seeds, device: torch.device) -> None:
        """Make what needs the device or random numbers; called once, with the model on the device and before the optimiser is
        built."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Return modules beside the model, by name: on the device, in training mode, optimised where they require gradients,
        saved whole."""
        return {}

    def parameters(self) -> list[nn.Parameter]:
        """Return further parameters that learn and lie in no module; they never decay."""
        return []

    def clipping_groups(self, learned: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Return which of the ``learned`` parameters share one norm when gradients are clipped: all of them, unless
        overridden."""
        return [list(learned)]

    @abstractmethod
    def backward(self, batch: BatchT, step: int) -> Tensor:
        """Write gradients into ``.grad`` (cleared before) and return the detached losses, shape ``[len(loss_names)]``.

        Nothing in it should wait for a value (``.item()``). Of several processes each calls it with its own batch; the loop
        averages gradients and losses afterwards.

        Args:
            batch: What the source gave.
            step: Number of finished steps.
        """

    def before_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        """Change gradients before they are clipped; ``learned`` are the optimiser's parameters, whose order never changes."""

    def after_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        """Change gradients after they were clipped."""

    def finish(self, batch: BatchT, losses: Tensor, step: int) -> None:
        """Follow the step that was made: a momentum teacher, sums over an epoch.

        Args:
            batch: What was learned from.
            losses: The losses that :meth:`backward` returned, averaged over processes.
            step: Number of finished steps, this one included.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values for checkpoints; parameters and modules are saved by the loop."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""

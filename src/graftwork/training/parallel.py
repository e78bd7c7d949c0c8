"""One training over several processes, each with its share of every batch: the numbers of one process with the whole batch, up to
the rounding of sums in another order (2e-7 in our tests).

Launch the processes with ``torchrun``, initialise ``torch.distributed`` (``gloo`` on CPUs, ``nccl`` on GPUs) and hand
``DataParallel()`` to :class:`~graftwork.training.trainer.Trainer`. Gradients are averaged by hand after the balancer, in one
message, and not by hooks during the
backward pass: balancers make several passes a step, and aggregators need averaged rows, not averaged sums.

Build the trainer with equal seeds in all processes: batches, masks of dropout and the noise of gradient transforms are drawn from
them, and must be the same.

Dropout is drawn for the whole batch in every process, which keeps the masks of its own rows (:mod:`.whole_batch_draws`): this holds
for dropout layers on tensors whose first dimension are the rows, with ``accumulate`` above 1 where the parts of all processes have
equally many rows. Whatever else a model draws row by row (noise of routers, stochastic depth, dropout inside fused attention), it
draws in each process for its own rows. Such a training is the same in distribution and repeats with the same number of processes,
but its numbers are those of no other number; a warning names the draw in the first step. Layers that normalise over the batch
(batch norm) see the rows of one process, without a warning.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.training.whole_batch_draws import WholeBatchDraws

__all__ = ["DataParallel"]


class DataParallel:
    """The processes of a training.

    Args:
        group: Process group; None takes all processes.

    Raises:
        ConfigError: If ``torch.distributed`` was not initialised.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ConfigError(
                "Training over several processes needs torch.distributed: start the script with `torchrun --nproc-per-node "
                "2 script.py` and call torch.distributed.init_process_group('gloo') (or 'nccl') first."
            )
        self.group = group
        self.size: int = dist.get_world_size(group)
        self.rank: int = dist.get_rank(group)
        self._warned: set[str] = set()

    def average(self, tensor: Tensor) -> Tensor:
        """Average a tensor over the processes, in place, and return it."""
        dist.all_reduce(tensor, group=self.group)
        return tensor.div_(self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes; the argument is kept."""
        summed = tensor.clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def own_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process' share of the rows of a batch.

        Raises:
            ConfigError: If a process would get none.
        """
        if len(rows) < self.size:
            raise ConfigError(f"A batch of {len(rows)} rows cannot be shared by {self.size} processes; raise batch_size.")
        # Every n-th row: quotas stand one after the other, and each process needs its share of all of them.
        return rows[self.share]

    @property
    def share(self) -> slice:
        """Which rows of a batch are this process' own."""
        return slice(self.rank, None, self.size)

    def draws(self, own: int, num_rows: int, parts: int = 1) -> contextlib.AbstractContextManager[object]:
        """Return a context in which dropout is drawn for the whole batch.

        Args:
            own: Rows of what goes through the model: this process' share of a batch, or a part of it.
            num_rows: Rows of the whole batch.
            parts: Number of parts that a share is taken in.
        """
        # Uneven parts: as many rows as the longest part of any process has, so that all go on at one place of the stream.
        whole = num_rows if parts == 1 else self.size * math.ceil(math.ceil(num_rows / self.size) / parts)
        return WholeBatchDraws(own, whole, self.share, self._warned)

    @torch.no_grad()
    def same_start(self, model: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first."""
        # `broadcast` counts ranks in the world, not in the group.
        first = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), first, group=self.group)

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average ``.grad`` over the processes in one message; where no process has a gradient, there is none afterwards."""
        device = parameters[0].device
        # A parameter without a gradient here may have one elsewhere. All processes must step the same parameters, or they drift
        # apart.
        present = torch.tensor([0.0 if parameter.grad is None else 1.0 for parameter in parameters], device=device)
        parts = [
            torch.zeros(parameter.numel(), device=device) if parameter.grad is None else parameter.grad.flatten().float()
            for parameter in parameters
        ]
        # One message for flags and values: a second one would double the waiting.
        message = self.average(torch.cat([present, *parts]))
        found = message[: len(parameters)].tolist()
        averaged = message[len(parameters) :].split([parameter.numel() for parameter in parameters])
        for parameter, share, gradient in zip(parameters, found, averaged, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if share > 0 else None

"""A batch in several parts: gradient accumulation, and shares of processes, with the losses of the whole batch.

The loss of a task is the mean over its labelled entries, and parts need not hold equally many. A part's loss is therefore
multiplied by its share of the batch's labels; sums over parts (and means over processes) are then the batch's loss, whatever is
missing where.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.balancer import Balancer
from graftwork.tasks.losses import label_count
from graftwork.training.parallel import DataParallel

__all__ = ["check_shares", "loss_shares", "split_batch"]


def split_batch(batch: Batch, parts: int, *, interleaved: bool = False) -> list[Batch]:
    """Return ``parts`` batches of nearly equal size (fewer, if there are fewer rows).

    Args:
        batch: What to split.
        parts: Number of parts.
        interleaved: Take every ``parts``-th row in place of a run of rows, so that each part holds its share of every quota.
    """
    if parts == 1:
        return [batch]
    if interleaved:
        number = torch.arange(len(batch), device=batch.rows.device)
        return [batch.take(number[first::parts]) for first in range(min(parts, len(batch)))]
    bounds = [round(len(batch) * index / parts) for index in range(parts + 1)]
    return [batch.take(slice(first, last)) for first, last in itertools.pairwise(bounds) if last > first]


def loss_shares(parts: Sequence[Batch], tasks: Sequence[TaskSpec], processes: DataParallel | None) -> tuple[list[Tensor], Tensor]:
    """Return what each part's losses are multiplied by, ``[T]`` a part, and which tasks have labels in the whole batch, bool
    ``[T]``.

    Multiplied losses, summed over parts and averaged over processes, are the losses of the whole batch.
    """
    # [parts, T]
    counts = torch.stack([torch.stack([label_count(task, part.targets[task.name]) for task in tasks]) for part in parts]).float()
    total, size = counts.sum(dim=0), 1
    if processes is not None:
        total, size = processes.total(total), processes.size
    # The mean over processes divides by their number, so it is multiplied in here.
    return list(counts * size / total.clamp(min=1.0)), total > 0


def check_shares(balancer: Balancer, parts: int, processes: DataParallel | None) -> None:
    """Check that a balancer can take a batch in parts, or in shares of several processes.

    Raises:
        ConfigError: If it cannot.
    """
    name = type(balancer).__name__
    if parts > 1 and not balancer.accumulates:
        raise ConfigError(
            f"{name} needs the whole batch at once and cannot accumulate gradients over {parts} parts. Set accumulate=1 and "
            "a smaller batch_size, or balance in mode 'parameters'."
        )
    if processes is not None and processes.size > 1 and not balancer.parallel:
        raise ConfigError(f"{name} cannot be trained over {processes.size} processes; train in one, or choose another balancer.")

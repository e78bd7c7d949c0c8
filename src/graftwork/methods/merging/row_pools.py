"""Rows that mergers learn from, a pool for each model: drawn again and again, held once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from graftwork.core.batch import Batch

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["RowPool", "collect_rows", "has_label", "may_belong_to"]


class RowPool:
    """Rows of which random batches are drawn: every row once before any comes again.

    Args:
        rows: All of them, at least one.
        generator: Draws the order.
    """

    def __init__(self, rows: Batch, generator: Generator) -> None:
        self.rows = rows
        self._generator = generator
        self._waiting: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, size: int) -> Batch:
        """Return the next ``size`` rows, or all if there are no more."""
        import torch

        size = min(size, len(self))
        while len(self._waiting) < size:
            self._waiting += torch.randperm(len(self), generator=self._generator).tolist()
        chosen, self._waiting = self._waiting[:size], self._waiting[size:]
        return self.rows.take(torch.tensor(chosen, device=self.rows.rows.device))


def collect_rows(batches: Iterable[Batch], keep: Callable[[Batch], Tensor], *, most: int, generator: Generator) -> Batch | None:
    """Return the rows of all batches that ``keep`` marks, as one batch; None if there are none.

    Args:
        batches: Rows in any order.
        keep: Returns a boolean for each row of a batch, ``[B]``.
        most: Of more rows than this some are drawn.
        generator: Draws them.
    """
    import torch

    kept = [batch.take(chosen.nonzero().flatten()) for batch in batches if bool((chosen := keep(batch)).any())]
    if not kept:
        return None
    first = kept[0]
    rows = Batch(
        {name: torch.cat([part.inputs[name] for part in kept]) for name in first.inputs},
        {name: torch.cat([part.targets[name] for part in kept]) for name in first.targets},
        {name: torch.cat([part.mask[name] for part in kept]) for name in first.mask},
        torch.cat([part.rows for part in kept]),
        torch.cat([part.domain for part in kept]),
        torch.cat([part.role for part in kept]),
        torch.cat([part.task_ids for part in kept]),
    )
    if len(rows) <= most:
        return rows
    chosen = torch.randperm(len(rows), generator=generator)[:most].sort().values
    return rows.take(chosen.to(rows.rows.device))


def may_belong_to(batch: Batch, tasks: Sequence[str]) -> Tensor:
    """Return which rows may be of these tasks, ``[B]``: those with a label of one of them, and those without any label at all.
    What the labels are is not looked at."""
    import torch

    labelled = torch.stack(list(batch.mask.values())) if batch.mask else torch.zeros(1, len(batch), dtype=torch.bool)
    return has_label(batch, tasks) | ~labelled.any(dim=0).to(batch.rows.device)


def has_label(batch: Batch, tasks: Sequence[str]) -> Tensor:
    """Return which rows have a label of one of these tasks, ``[B]``."""
    import torch

    own = [batch.mask[name] for name in tasks if name in batch.mask]
    return torch.stack(own).any(dim=0) if own else torch.zeros(len(batch), dtype=torch.bool, device=batch.rows.device)

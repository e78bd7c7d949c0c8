"""What routers are trained by besides the task losses, what they decided, and how evenly experts are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graftwork.nn.moe_router import Routing

__all__ = ["RoutingJournal", "RoutingRecord", "balance_loss", "expert_usage", "mutual_information_loss", "squared_variation"]


@dataclass(frozen=True, slots=True)
class RoutingRecord:
    """Sums over the tokens of one call of a layer."""

    task: int
    probabilities: Tensor
    """``[E]``, part of the graph."""
    importance: Tensor
    """Kept gates, ``[E]``, part of the graph."""
    load: Tensor
    """See :attr:`graftwork.nn.moe_router.Routing.load`."""
    chosen: Tensor
    """How often each expert was chosen, ``[E]``."""
    num_tokens: int


class RoutingJournal:
    """Records of one layer since it was last cleared. A copy of a layer starts with an empty journal: records hold a graph."""

    def __init__(self) -> None:
        self.records: list[RoutingRecord] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> RoutingJournal:
        return RoutingJournal()

    def add(self, task: int, routing: Routing) -> None:
        """Write down one call."""
        dense = routing.dense_gates()
        chosen = torch.zeros_like(dense).scatter(1, routing.experts, 1.0).sum(dim=0).detach()
        self.records.append(
            RoutingRecord(
                task, routing.probabilities.sum(dim=0), dense.sum(dim=0), routing.load, chosen, routing.experts.shape[0]
            )
        )

    def pop(self) -> list[RoutingRecord]:
        """Return and forget the records."""
        records, self.records = self.records, []
        return records


def squared_variation(values: Tensor) -> Tensor:
    """Return the squared coefficient of variation, variance (with ``n - 1``) over squared mean; 0 for a single value.

    Example:
        >>> float(squared_variation(torch.tensor([1.0, 3.0])))
        0.5
    """
    if len(values) < 2:
        return values.new_zeros(())
    # The constant is for a call in which no expert gets anything.
    return values.var() / (values.mean().square() + 1e-10)


def balance_loss(records: Sequence[RoutingRecord]) -> Tensor:
    """Return the sum over calls of the squared variations of importance and load: 0 if all experts are used alike.

    Paper: Shazeer et al., https://arxiv.org/abs/1701.06538.

    Args:
        records: Calls of one layer, at least one; those without tokens do not count.
    """
    terms = [squared_variation(item.importance) + squared_variation(item.load) for item in records if item.num_tokens]
    return torch.stack(terms).sum() if terms else records[0].importance.new_zeros(())


def mutual_information_loss(records: Sequence[RoutingRecord]) -> Tensor:
    """Return minus the mutual information of task and expert, in nats: at least ``-log(min(T, E))``, and 0 if all tasks route
    alike.

    ``P(t, e)`` is the sum of the routers' probabilities over the tokens of task ``t``, over all tokens. Minimising the loss asks
    for many
    experts over all tasks and few experts for each. One task alone has nothing to tell: its loss is 0.

    Paper: Chen et al., "Mod-Squad", https://arxiv.org/abs/2212.08066.

    Args:
        records: The calls of one layer for all tasks of a step, before any backward pass. Tasks that see fewer experts have
            probability 0 for the others.
    """
    num_tasks, num_experts = 1 + max(item.task for item in records), max(len(item.probabilities) for item in records)
    joint = records[0].probabilities.new_zeros(num_tasks, num_experts)
    for item in records:
        place = torch.tensor([item.task], device=joint.device)
        # Experts that were added later are at the end, and older tasks never see them.
        row = torch.nn.functional.pad(item.probabilities, (0, num_experts - len(item.probabilities)))
        # Not in place: every row keeps its graph.
        joint = joint.index_add(0, place, row.unsqueeze(0))
    joint = joint / joint.sum().clamp(min=1e-12)
    smallest = torch.finfo(joint.dtype).tiny
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    # 0 * log 0 counts as 0: the clamp keeps the logarithm finite, and the factor in front is 0.
    return -(joint * (joint.clamp(min=smallest).log() - independent.clamp(min=smallest).log())).sum()


def expert_usage(records: Mapping[str, Sequence[RoutingRecord]]) -> dict[str, dict[int, Tensor]]:
    """Return ``{layer: {task: [E]}}``: the share of a task's choices that fell on each expert; shares sum to one.

    Args:
        records: Calls by name of the layer, in evaluation mode.
    """
    usage: dict[str, dict[int, Tensor]] = {}
    for layer, calls in records.items():
        counted: dict[int, Tensor] = {}
        for item in calls:
            counted[item.task] = counted[item.task] + item.chosen if item.task in counted else item.chosen
        usage[layer] = {task: count / count.sum().clamp(min=1) for task, count in counted.items()}
    return usage

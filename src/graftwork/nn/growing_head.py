"""A linear classifier whose classes come in groups: the rows of older groups are frozen, classes without rows get no
probability."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["UNSEEN", "GrowingHead", "only_classes"]

UNSEEN = -1e4
"""Logit of a class without rows: float32 gives it a probability of exactly 0, and losses that are masked by a product stay
finite, as they would not with minus infinity."""


class GrowingHead(nn.Module):
    """Rows of a classifier, group by group.

    Args:
        width: Width of the features.
        num_classes: Number of all classes that will ever be.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.width, self.num_classes = width, num_classes
        self.rows = nn.ModuleList()
        self.groups: list[tuple[int, ...]] = []
        """Classes of each group, in the order of its rows."""

    def grow(self, classes: Sequence[int]) -> None:
        """Freeze all rows and add those of a new group, drawn from torch's global generator.

        Raises:
            ConfigError: If a class has rows already, or is not among all classes.
        """
        taken = {index for group in self.groups for index in group}
        wrong = [index for index in classes if index in taken or not 0 <= index < self.num_classes]
        if wrong or not classes:
            raise ConfigError(
                f"New classes must be from 0 to {self.num_classes - 1} and new; got {list(classes)}, and {sorted(taken)} are known."
            )
        # Before the new rows are added: only they learn.
        self.requires_grad_(False)
        self.rows.append(nn.Linear(self.width, len(classes)))
        self.groups.append(tuple(classes))

    def forward(self, features: Tensor, groups: Sequence[int] | None = None) -> Tensor:
        """Return logits ``[B, num_classes]``; those of classes that are not computed are :data:`UNSEEN`.

        Args:
            features: ``[B, width]`` for all groups, or ``[G, B, width]``, one for each of the groups.
            groups: Numbers of the groups to compute; None computes all.
        """
        numbers = list(range(len(self.rows))) if groups is None else list(groups)
        # [G, B, width]: the same features for every group, without a copy.
        each = features if features.ndim == 3 else features.expand(len(numbers), *features.shape)
        logits = each.new_full((each.shape[1], self.num_classes), UNSEEN)
        if not numbers:
            return logits
        found = torch.cat([self.rows[number](part) for number, part in zip(numbers, each, strict=True)], dim=1)
        # Not in place: the constant has no graph, and rows are in the order of groups, not of classes.
        return logits.index_copy(1, self._places(numbers, logits.device), found)

    def _places(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        return torch.tensor([index for number in numbers for index in self.groups[number]], device=device)


def only_classes(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Return logits ``[B, K]`` with all classes but some at :data:`UNSEEN`, so that nothing is learned of them."""
    kept = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    kept[list(classes)] = True
    return torch.where(kept, logits, UNSEEN)

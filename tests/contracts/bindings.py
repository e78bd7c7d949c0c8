"""What parts of plans are bound to in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.interfaces.binding import Binding, SuiteFacts
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone

__all__ = ["TASKS", "binding", "example_batch"]

TASKS = (
    TaskSpec(name="sign", kind="binary", size=1),
    TaskSpec(name="level", kind="multiclass", size=3),
    TaskSpec(name="amount", kind="regression", size=2, center=(0.0, 1.0), scale=(1.0, 2.0)),
)


def example_batch(rows: int = 8) -> Batch:
    """Return a batch of a table: half of the rows labelled and of the first domain, half unlabelled and of the second."""
    random = torch.Generator().manual_seed(1)
    known, number = torch.arange(rows) < rows // 2, torch.arange(rows)
    targets = {
        "sign": torch.where(known, number % 2, -1),
        "level": torch.where(known, number % 3, -1),
        "amount": torch.randn(rows, 2, generator=random).masked_fill(~known.unsqueeze(1), torch.nan),
    }
    inputs = {
        "numeric": torch.randn(rows, 4, generator=random),
        "categorical": torch.zeros(rows, 0, dtype=torch.int64),
        "image": torch.randint(0, 256, (rows, 16, 16, 3), generator=random, dtype=torch.uint8),
    }
    return Batch(inputs, targets, dict.fromkeys(targets, known), number, (~known).long())


def binding(
    seed: int = 0,
    *,
    tasks: Sequence[TaskSpec] = TASKS,
    model: SharedModel | None = None,
    device: str = "cpu",
    **facts: Any,
) -> Binding:
    """Return a binding to a small model of a table; ``facts`` replace those of a suite of 40 labelled and 20 unlabelled rows in
    two domains."""
    known: dict[str, Any] = {
        "domains": ("day", "night"),
        "labelled": (40, 0),
        "unlabelled": (0, 20),
        "batch_size": 8,
        "steps_per_epoch": 10,
        "horizon": 100,
        **facts,
    }
    if model is None:
        torch.manual_seed(0)
        model = SharedTrunk(tasks, lambda: TableBackbone(4, width=8, num_blocks=1), inputs={})
    return Binding(model.to(device), tuple(tasks), SuiteFacts(**known), example_batch().to(device), torch.device(device), seed)

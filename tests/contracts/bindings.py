"""What parts of plans are bound to in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graftwork.core.records import TaskSpec
from graftwork.interfaces.binding import Binding, SuiteFacts
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone

__all__ = ["TASKS", "binding"]

TASKS = (
    TaskSpec(name="sign", kind="binary", size=1),
    TaskSpec(name="level", kind="multiclass", size=3),
    TaskSpec(name="amount", kind="regression", size=2, center=(0.0, 1.0), scale=(1.0, 2.0)),
)


def binding(
    seed: int = 0,
    *,
    tasks: Sequence[TaskSpec] = TASKS,
    model: SharedModel | None = None,
    device: str = "cpu",
    **facts: Any,
) -> Binding:
    """Return a binding to a small model of a table; ``facts`` replace those of a suite of 40 labelled and 20 unlabelled rows in two domains."""
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
        model = SharedTrunk(tasks, lambda: TableBackbone(4, width=8, num_blocks=1), input_sizes={})
    return Binding(model.to(device), tuple(tasks), SuiteFacts(**known), torch.device(device), seed)

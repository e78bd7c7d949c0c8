"""Decoded predictions of a model for rows of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.records import TaskSpec
from graftwork.data.loader import BatchStream, RowSource
from graftwork.data.suite import Suite
from graftwork.interfaces.shared_model import SharedModel
from graftwork.tasks.decode import decode_output

__all__ = ["predict_rows"]


@torch.inference_mode()
def predict_rows(
    model: SharedModel,
    all_tasks: Sequence[TaskSpec],
    source: BatchStream | Suite,
    rows: NDArray[np.int64],
    tasks: Sequence[str] | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> dict[str, NDArray[Any]]:
    """Return predictions in the user's units, in the order of ``rows``.

    Args:
        model: In evaluation mode, on ``device``.
        all_tasks: The model's tasks.
        source: The suite, or a stream over it.
        rows: Row numbers.
        tasks: Names of the tasks; None takes all. What is not asked is not computed.
        batch_size: Rows at a time; part of the result for models whose rows see each other.
        device: Where the model lives.
    """
    suite_rows = source.source if isinstance(source, BatchStream) else RowSource(source, device)
    wanted = [task for task in all_tasks if tasks is None or task.name in tasks]
    parts: dict[str, list[Tensor]] = {task.name: [] for task in wanted}
    for start in range(0, len(rows), batch_size):
        batch = suite_rows.batch(np.asarray(rows[start : start + batch_size], dtype=np.int64))
        outputs = model(batch.inputs, tuple(parts))
        for task in wanted:
            parts[task.name].append(decode_output(task, outputs[task.name]).cpu())
    return {name: torch.cat(chunks).numpy() if chunks else np.zeros((0,), dtype=np.float32) for name, chunks in parts.items()}

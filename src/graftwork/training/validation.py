"""When a training is validated, on which rows, and how many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.training.config import TrainConfig

__all__ = ["evaluation_batch", "validation_points", "validation_rows"]

Array = NDArray[Any]

EVALUATION_BATCH = 256
EVALUATED_TOKENS = 8192
"""Tokens of pretrained text backbones that are looked at without training; 256 texts of 128 tokens would take more than 1 GB."""
MAX_VALIDATION_ROWS = 4096
"""More rows hardly change which weights are best."""
VALIDATION_SHARE = 0.1
"""Validation may cost about so much of training, a forward pass counting as a third of a training step."""


def evaluation_batch(inputs: Mapping[str, Array]) -> int:
    """Return how many rows are looked at together without training."""
    tokens = sum(array.shape[1] for name, array in inputs.items() if name.rpartition(".")[2] == "token_ids")
    return max(1, min(EVALUATION_BATCH, EVALUATED_TOKENS // max(tokens, 1)))


def validation_rows(rows: NDArray[np.int64], seeds: Seeds) -> NDArray[np.int64]:
    """Return the validation rows, or a sample of many."""
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) <= MAX_VALIDATION_ROWS:
        return rows
    return np.sort(seeds.numpy("validation").permutation(rows)[:MAX_VALIDATION_ROWS])


def validation_points(config: TrainConfig, batch_size: int, num_rows: int) -> list[int]:
    """Return the steps after which to validate: quarters of the horizon at least (the race stops there), eighths if they are
    cheap."""
    if config.evaluations == 0 or num_rows == 0:
        return []
    # A validation costs a third of `num_rows` rows of training.
    affordable = int(VALIDATION_SHARE * 3 * config.max_steps * batch_size / num_rows)
    count = min(config.evaluations, max(4, affordable), config.max_steps)
    if count > 8:
        # The race stops at quarters and at halves.
        count -= count % 4
    return sorted({round(config.max_steps * index / count) for index in range(1, count + 1)})

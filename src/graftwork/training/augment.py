"""Random changes of a batch of pictures, drawn anew for every step from seed and step alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.training.config import Augmentation

__all__ = ["augment_batch", "check_augmentation"]

SHIFT = 1 / 16
"""Largest shift as a share of the picture's side."""
_ALL = slice(None)


def check_augmentation(augment: Augmentation, inputs: tuple[str, ...], tasks: tuple[TaskSpec, ...]) -> None:
    """Refuse what cannot be done to these data.

    Raises:
        ConfigError: If there are no pictures, or shifts would move a dense target away from its picture.
    """
    if augment == "none":
        return
    if "image" not in inputs:
        raise ConfigError(f"augment={augment!r} needs pictures; the inputs are {', '.join(inputs)}. Set augment to 'none'.")
    dense = [task.name for task in tasks if task.is_dense]
    if "shift" in augment and dense:
        raise ConfigError(
            f"augment={augment!r} would shift pictures against the dense targets {dense}. Set augment to 'flip' or 'none'."
        )


def augment_batch(
    batch: Batch,
    augment: Augmentation,
    tasks: tuple[TaskSpec, ...],
    seed: int,
    step: int,
    *,
    share: slice = _ALL,
    num_rows: int | None = None,
) -> Batch:
    """Return the batch with its pictures flipped (each with probability one half) or shifted (edges repeat).

    Dense targets are flipped along; the first component of flipped normals and offsets changes sign.

    Args:
        batch: The rows of this process.
        augment: What is done.
        tasks: The tasks of the targets.
        seed: With ``step`` the seed of all draws.
        step: See ``seed``.
        share: Which rows of the whole step these are: all draws are made for the whole step, so that a row changes in the same
            way whichever process has it.
        num_rows: Rows of the whole step; those of the batch by default.
    """
    if augment == "none":
        return batch
    # [B, H, W, C]
    pictures = batch.inputs["image"]
    random = np.random.default_rng([seed, step])
    targets = dict(batch.targets)
    size, count = pictures.shape[1], len(pictures)
    total = count if num_rows is None else num_rows
    columns = torch.arange(size).expand(count, size)
    if "flip" in augment:
        flipped = torch.from_numpy(random.random(total)[share] < 0.5)
        # [B, W]: which column of the old picture each new column shows
        columns = torch.where(flipped.unsqueeze(1), columns.flip(1), columns)
        for task in tasks:
            if task.is_dense:
                target = targets[task.name]
                mirrored = task_kind(task).mirror(task, target)
                targets[task.name] = torch.where(flipped.view(-1, *[1] * (target.ndim - 1)), mirrored, target)
    rows = torch.arange(size).expand(count, size)
    if "shift" in augment:
        reach = max(1, round(size * SHIFT))
        # Rows and columns of a picture move by amounts of their own; all pixels of a picture move together.
        moves = torch.from_numpy(random.integers(-reach, reach + 1, size=(2, total, 1))[:, share])
        rows = (rows + moves[0]).clamp(0, size - 1)
        # Gathered, not added: the columns may be mirrored already.
        columns = columns.gather(1, (torch.arange(size) + moves[1]).clamp(0, size - 1))
    which = torch.arange(count).view(-1, 1, 1)
    # [B, 1, 1] with [B, H, 1] and [B, 1, W] picks [B, H, W, C] in one copy.
    moved = pictures[which, rows.unsqueeze(2), columns.unsqueeze(1)]
    return replace(batch, inputs={**batch.inputs, "image": moved}, targets=targets)

"""A family of related tasks on scikit-learn's handwritten digits: one pre-training task and eight tasks to tune for, with real
conflicts.

Digits (1,797 pictures of 8x8 pixels, shipped with scikit-learn) are drawn on 12x12 canvases at a place, turn and size of chance,
with noise. The pre-training task names the digit. Each tuned task sees the canvas through its own change of drawing (mirrored,
turned, inverted, lines thickened, occluded ...) and asks for the digit under its own order of classes, so that all tasks share
what a stroke is and differ in how it is read.
Tasks are split by original picture: no digit of the test split was seen in training in any drawing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["DRAWINGS", "digit_family"]

Array = NDArray[np.float32]


def _thick(picture: Array) -> Array:
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, row : row + 12, column : column + 12] for row in range(3) for column in range(3)]
    return np.maximum.reduce(shifted)


def _occluded(picture: Array) -> Array:
    out = picture.copy()
    out[:, 5:8, :] = 0.0
    return out


def _edges(picture: Array) -> Array:
    return np.abs(np.diff(picture, axis=1, prepend=0.0)) + np.abs(np.diff(picture, axis=2, prepend=0.0))


def _checkered(picture: Array) -> Array:
    return np.where(np.indices((12, 12)).sum(axis=0) % 2 == 0, picture, 1.0 - picture).astype(np.float32)


DRAWINGS: dict[str, Callable[[Array], Array]] = {
    "mirrored": lambda picture: picture[:, :, ::-1],
    "turned": lambda picture: np.rot90(picture, axes=(1, 2)),
    "inverted": lambda picture: 1.0 - picture,
    "thick": _thick,
    "occluded": _occluded,
    "edges": _edges,
    "upside-down": lambda picture: picture[:, ::-1, :],
    "checkered": _checkered,
}
"""How each tuned task draws its pictures; the pre-training task ``plain`` draws them as they are."""


def digit_family(task: str = "plain", *, copies: int = 4, seed: int = 0) -> Suite:
    """Handwritten digits on 12x12 canvases, one task of a family: the plain digit, or one drawn and named anew.

    Args:
        task: ``plain`` (the pre-training task) or a name of :data:`DRAWINGS`.
        copies: Random placements per original picture.
        seed: Draws split, placements, noise and the order of classes; equal for all tasks of a family.

    Raises:
        ConfigError: If there is no such task.
    """
    from sklearn.datasets import load_digits

    if task != "plain" and task not in DRAWINGS:
        raise ConfigError(f"There is no digit task {task!r}; the tasks are plain, {', '.join(DRAWINGS)}.")
    digits = load_digits()
    seeds = Seeds(seed)
    originals = np.tile(np.arange(len(digits.target)), copies)
    pictures = _place(digits.images[originals].astype(np.float32) / 16.0, seeds.child(f"place/{task}"))
    if task != "plain":
        pictures = DRAWINGS[task](pictures)
    pictures = pictures + seeds.numpy(f"noise/{task}").normal(0.0, 0.08, size=pictures.shape).astype(np.float32)
    # Each task has its own order of classes, so that the head of one cannot serve another.
    classes = np.arange(10) if task == "plain" else seeds.numpy(f"classes/{task}").permutation(10)
    flat = ((pictures.reshape(len(pictures), -1) - 0.3) / 0.4).astype(np.float32)
    part = seeds.numpy("split").permutation(len(digits.target))
    borders = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}
    # Where each original stands in the order of the split, in [0, 1).
    rank = np.empty(len(part))
    rank[part] = np.arange(len(part)) / len(part)
    return Suite.of_arrays(
        name=f"digits-{task}",
        input_specs=table_input(144),
        tasks=[TaskSpec(name="digit", kind="multiclass", size=10, classes=tuple(map(str, range(10))))],
        inputs={"numeric": flat, "categorical": np.zeros((len(pictures), 0), np.int64)},
        targets={"digit": classes[digits.target[originals]].astype(np.int64)},
        splits={
            name: np.flatnonzero((rank[originals] >= low) & (rank[originals] < high)) for name, (low, high) in borders.items()
        },
        groups=originals.astype(np.int64),
        credits={"digits": "scikit-learn's copy of the UCI optical digits, BSD-3 / CC BY 4.0"},
    )


def _place(pictures: Array, seeds: Seeds) -> Array:
    """Put 8x8 pictures onto 12x12 canvases, shifted by up to one pixel to each side."""
    draw = seeds.numpy("shift")
    rows, columns = draw.integers(1, 4, size=(2, len(pictures)))
    canvas = np.zeros((len(pictures), 12, 12), np.float32)
    index = np.arange(len(pictures))[:, None, None]
    # Rows, their lines and columns broadcast to [N, 8, 8], so that all pictures are placed at once.
    canvas[index, rows[:, None, None] + np.arange(8)[:, None], columns[:, None, None] + np.arange(8)[None, :]] = pictures
    return canvas * draw.uniform(0.7, 1.0, size=(len(pictures), 1, 1)).astype(np.float32)

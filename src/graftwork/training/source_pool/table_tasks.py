"""Related tables of generated numbers, for a pool of small networks and the targets that they are tried on.

All tasks of a world share the columns and a stock of hidden concepts, each a wave along a direction of few columns. A task's classes
are told by linear readouts of some of the concepts: a source that learned the concepts of a target has features from which a linear
model can tell its classes, whatever its own classes were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds

__all__ = ["COLUMNS", "SOURCE_TABLES", "TARGET_TABLES", "TableTask", "draw_table"]

COLUMNS = 16
_CONCEPTS = 12
_COLUMNS_OF_A_CONCEPT = 3
_WAVES = 1.5
"""How fast a concept rises and falls along its direction, in radians a standard deviation: too bent for a linear model, and within reach
of a small network that has a few thousand rows."""
_FIRST, _MIDDLE, _LAST, _ALL = tuple(range(4)), tuple(range(4, 8)), tuple(range(8, 12)), tuple(range(_CONCEPTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTask:
    """One table."""

    name: str
    concepts: tuple[int, ...]
    """Numbers of the concepts that its classes depend on."""
    classes: int = 6
    share: float = 1.0
    """Share of the usual training rows that it has."""
    noise: float = 0.1
    """Standard deviation of what is added to the readouts, whose own is 1."""
    shuffled: bool = False
    """Whether labels are dealt at random: a source that cannot have learned anything useful from them."""
    world: int = 0
    """Which stock of concepts it draws on."""


SOURCE_TABLES: tuple[TableTask, ...] = (
    TableTask(name="all", concepts=_ALL),
    TableTask(name="first", concepts=_FIRST),
    TableTask(name="middle", concepts=_MIDDLE),
    TableTask(name="last", concepts=_LAST),
    TableTask(name="first-middle", concepts=_FIRST + _MIDDLE),
    TableTask(name="first-few-rows", concepts=_FIRST, share=0.1),
    TableTask(name="all-few-rows", concepts=_ALL, share=0.1),
    TableTask(name="first-two-classes", concepts=_FIRST, classes=2),
    TableTask(name="all-noisy", concepts=_ALL, noise=1.0),
    TableTask(name="shuffled", concepts=_ALL, shuffled=True),
    TableTask(name="elsewhere", concepts=_ALL, world=1),
)
"""What members are trained on."""
TARGET_TABLES: tuple[TableTask, ...] = (
    TableTask(name="new-first", concepts=_FIRST),
    TableTask(name="new-last", concepts=_LAST),
    TableTask(name="new-mixed", concepts=(2, 3, 4, 5)),
    TableTask(name="new-all", concepts=_ALL),
)
"""What they are tried on; their readouts are nobody else's."""


def draw_table(task: TableTask, *, num_train: int, num_test: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw a table; equal arguments give equal bits.

    Args:
        task: What to draw.
        num_train: Training rows of a task whose share is 1; they come first.
        num_test: Test rows.
        seed: Root of all worlds and tasks.

    Returns:
        Columns float32 ``[rows, 16]`` and classes ``[rows]``.
    """
    world = Seeds(seed).child(f"table world {task.world}").numpy("concepts")
    directions = np.zeros((_CONCEPTS, COLUMNS))
    for direction in directions:
        direction[world.permutation(COLUMNS)[:_COLUMNS_OF_A_CONCEPT]] = world.choice([-1.0, 1.0], _COLUMNS_OF_A_CONCEPT)
    directions /= np.sqrt(_COLUMNS_OF_A_CONCEPT)
    phases = world.uniform(0.0, 2.0 * np.pi, size=_CONCEPTS)
    own = Seeds(seed).child(f"table task {task.name}")
    count = max(task.classes, round(task.share * num_train))
    rows = own.numpy("rows").normal(size=(count + num_test, COLUMNS))
    concepts = np.sin(_WAVES * rows @ directions.T + phases)[:, task.concepts]
    readouts = own.numpy("readouts").normal(size=(len(task.concepts), task.classes))
    scores = concepts @ readouts
    # No class may win nearly everywhere because its readout is larger.
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    labels = (scores + task.noise * own.numpy("noise").normal(size=scores.shape)).argmax(axis=1)
    if task.shuffled:
        labels = own.numpy("shuffled").permutation(labels)
    return rows.astype(np.float32), labels.astype(np.int64)

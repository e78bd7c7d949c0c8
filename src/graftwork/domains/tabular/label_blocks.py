"""What classical learners predict: each label column of a task as a block of numbers, and blocks put together as answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite, labelled_rows
from graftwork.domains.tabular.suite_graph import GraphBuilder, arrange_columns
from graftwork.interfaces.task_kind import LabelColumn, task_kind
from graftwork.tasks.class_weights import column_weights

__all__ = ["LabelBlock", "answers_of", "graph_answers", "label_blocks"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
MOST_CLASSES = 2000
"""Most classes of one target: every leaf, row or coefficient holds a number for each."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelBlock:
    """One label column: a standardised number, one probability (two classes, flags) or a probability for each class."""

    task: TaskSpec
    form: Literal["number", "classes"]
    values: Array
    """``[N]``: numbers with NaN, or classes with -1 (flags are classes 0 and 1)."""
    known: NDArray[np.bool_]
    """``[N]``: which rows have a label."""
    num_classes: int
    """Number of classes; 1 for a number."""
    center: float = 0.0
    scale: float = 1.0
    class_weights: Floats | None = None
    """``[C]``: how much rows of each class are to weigh; None for alike."""

    @property
    def width(self) -> int:
        """Number of columns: one, or as many as there are classes above two."""
        return self.num_classes if self.num_classes > 2 else 1

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.form == "number"

    def labelled(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows that have a label."""
        return rows[self.known[rows]]

    def classes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the classes ``[n]`` of labelled rows."""
        return self.values[rows].astype(np.int64)

    def targets(self, rows: NDArray[np.int64]) -> Floats:
        """Return ``[n, width]``: standardised numbers, or 0 and 1; NaN where the label is missing."""
        values = np.asarray(self.values[rows], dtype=np.float64)
        if self.is_number:
            found = ((values - self.center) / self.scale)[:, None]
        elif self.width == 1:
            found = values[:, None].copy()
        else:
            found = (values[:, None] == np.arange(self.num_classes)).astype(np.float64)
        found[~self.known[rows]] = np.nan
        return found

    def shares(self, rows: NDArray[np.int64]) -> Floats:
        """Return the mean of :meth:`targets` over labelled rows, ``[width]``."""
        known = self.labelled(rows)
        if self.width == 1:
            return np.asarray(self.targets(known).mean(axis=0))
        return np.bincount(self.classes(known), minlength=self.num_classes) / max(len(known), 1)

    def weighed(self, shares: Array) -> Array:
        """Return probabilities ``[n, width]`` as they would be if rows of each class weighed as asked.

        A learner that is fitted on weighted rows aims at ``p(c) w(c)``, normalised; of what learners without weights say it is made
        here, in one way for all of them.
        """
        weights = self.class_weights
        if weights is None:
            return shares
        if self.width == 1:
            return shares * weights[1] / (shares * weights[1] + (1.0 - shares) * weights[0])
        found = shares * weights
        total = found.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > 0, found / np.where(total > 0, total, 1.0), shares))

    def weighed_graph(self, graph: GraphBuilder, shares: str) -> str:
        """Add :meth:`weighed` to a graph, for the name of double values."""
        weights = self.class_weights
        if weights is None:
            return shares
        if self.width == 1:
            yes = graph.add("Mul", shares, np.array(weights[1]))
            no = graph.add("Mul", graph.add("Sub", np.array(1.0), shares), np.array(weights[0]))
            return graph.add("Div", yes, graph.add("Add", yes, no))
        found = graph.add("Mul", shares, weights)
        total = graph.add("ReduceSum", found, np.array([1], dtype=np.int64), keepdims=1)
        is_there = graph.add("Greater", total, np.array(0.0))
        return graph.add("Where", is_there, graph.add("Div", found, graph.add("Where", is_there, total, np.array(1.0))), shares)


def label_blocks(suite: Suite, learner: str, *, most_classes: int | None = MOST_CLASSES) -> list[LabelBlock]:
    """Return the blocks of all tasks, in order.

    Args:
        suite: Any suite.
        learner: Name of the learner, for messages.
        most_classes: Most classes of a target; None for any number.

    Raises:
        DataError: If a task is not made of classes or numbers, has no training label, or has too many classes.
    """
    blocks = []
    for task in suite.tasks:
        columns = task_kind(task).label_columns(task, np.asarray(suite.targets[task.name]))
        if not columns:
            raise DataError(
                f"{learner} cannot learn the task {task.name!r} ({task.kind_words}): it is not made of classes or numbers."
            )
        for index, column in enumerate(columns):
            if most_classes is not None and column.form == "classes" and column.num_classes > most_classes:
                raise DataError(
                    f"{learner} learns targets of at most {most_classes} classes, and {task.name!r} has {column.num_classes}. "
                    f"Leave the plan out, or join rare classes."
                )
            blocks.append(_block(suite, task, column, column_weights(task, index)))
    return blocks


def _block(suite: Suite, task: TaskSpec, column: LabelColumn, weights: Floats | None) -> LabelBlock:
    known = labelled_rows(column.values)
    train = suite.splits["train"][known[suite.splits["train"]]]
    if not len(train):
        raise DataError(f"Task {task.name!r} has no labelled training row.")
    if column.form == "number":
        values = np.asarray(column.values, dtype=np.float64)
        center, scale = float(values[train].mean()), float(values[train].std())
        scale = scale if scale > 1e-12 * max(1.0, abs(center)) else 1.0
        return LabelBlock(task, "number", values, known, 1, center, scale)
    values = np.where(known, column.values, -1).astype(np.int64)
    return LabelBlock(task, "classes", values, known, column.num_classes, class_weights=weights)


def answers_of(blocks: Sequence[LabelBlock], scores: Sequence[Array]) -> dict[str, Array]:
    """Return what ``Learner.predict`` does, for standardised numbers and probabilities ``[n, width]`` of each block."""
    parts: dict[str, list[Array]] = {}
    tasks = {block.task.name: block.task for block in blocks}
    for block, score in zip(blocks, scores, strict=True):
        parts.setdefault(block.task.name, []).append(
            block.center + block.scale * score if block.is_number else block.weighed(score)
        )
    return {name: arrange_columns(tasks[name], np.concatenate(found, axis=1)).astype(np.float32) for name, found in parts.items()}


def graph_answers(graph: GraphBuilder, blocks: Sequence[LabelBlock], scores: Sequence[str]) -> dict[str, str]:
    """Add :func:`answers_of` to a graph, for the names of double values ``[n, width]``; return ``{task: name}``."""
    parts: dict[str, list[str]] = {}
    tasks = {block.task.name: block.task for block in blocks}
    for block, score in zip(blocks, scores, strict=True):
        if block.is_number:
            score = graph.add("Add", graph.add("Mul", score, np.array(block.scale)), np.array(block.center))
        else:
            score = block.weighed_graph(graph, score)
        parts.setdefault(block.task.name, []).append(score)
    return {name: graph.arrange(tasks[name], graph.concat(found)) for name, found in parts.items()}

"""The same answer for every row: what any other plan has to beat.

Numbers get their mean (their median where the metric is the mean absolute error) and classes their shares among the training
rows. For kinds of tasks that are neither (survival, maps,
sequences ...) it is the answer of the constant output with the smallest loss of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.domains.tabular.label_blocks import LabelBlock, answers_of, label_blocks
from graftwork.domains.tabular.one_shot import OneShotLearner, State
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.interfaces.task_kind import TaskKind, task_kind

__all__ = ["ConstantLearner"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
_SAMPLE = 512
_ITERATIONS = 60


class ConstantLearner(OneShotLearner):
    """Does not look at the inputs, so that it takes any, and tasks of any kind.

    Args:
        context: Any suite.

    Raises:
        DataError: If a task has no training label.
    """

    words = "constant"
    slug = "constant"

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Return one answer a task, ``[1, ...]``."""
        return {str(index): self._answer(task) for index, task in enumerate(self.context.suite.tasks)}, {}

    def _answer(self, task: TaskSpec) -> Array:
        suite, kind = self.context.suite, task_kind(task)
        target, train = np.asarray(suite.targets[task.name]), suite.splits["train"]
        if kind.label_columns(task, target[:1]):
            blocks = label_blocks(suite.with_tasks((task.name,)), self.words, most_classes=None)
            return answers_of(blocks, [self.center(block, train)[None] for block in blocks])[task.name]
        known = labelled_rows(target[train])
        if not known.any():
            raise DataError(f"Task {task.name!r} has no labelled training row.")
        rows = train[known][np.linspace(0, known.sum() - 1, min(_SAMPLE, int(known.sum()))).astype(np.int64)]
        return _best_constant(kind, task, target[rows])

    def center(self, block: LabelBlock, rows: Rows) -> NDArray[np.float64]:
        """Return the answer for a label column ``[width]``: what the metric likes best of a constant."""
        if block.is_number and block.task.metric == "mae":
            return np.median(block.targets(block.labelled(rows)), axis=0)
        return block.shares(rows)

    def answers(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the answers, once a row."""
        values = state or self.fit()[0]
        return {
            task.name: np.repeat(values[str(index)], len(rows), axis=0) for index, task in enumerate(self.context.suite.tasks)
        }

    def graph_answers(self, graph: GraphBuilder, state: State) -> dict[str, str]:
        """Add the answers to a graph; of the inputs it reads how many rows there are."""
        batch = graph.add("Shape", next(iter(self.context.suite.inputs)), start=0, end=1)
        found = {}
        for index, task in enumerate(self.context.suite.tasks):
            value = state[str(index)]
            inner = np.array(value.shape[1:], dtype=np.int64)
            shape = graph.add("Concat", batch, inner, axis=0) if len(inner) else batch
            found[task.name] = graph.add("Expand", value, shape)
        return found


def _best_constant(kind: TaskKind, task: TaskSpec, target: Array) -> Array:
    """Return the decoded answer ``[1, ...]`` of the output, equal for all rows and positions, whose loss is smallest."""
    import torch

    from graftwork.nn.plain_optimizers import plain_optimizer

    labels = torch.from_numpy(np.ascontiguousarray(target))
    places: tuple[int, ...] = ()
    if kind.over_positions:  # classes have no channels, values have theirs on axis 1
        places = tuple(labels.shape[2:] if labels.is_floating_point() else labels.shape[1:])
    raw = torch.zeros((1, kind.num_outputs(task), *[1] * len(places)), dtype=torch.float32, requires_grad=True)
    optimizer = plain_optimizer(torch.optim.LBFGS)([raw], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        return kind.loss(task, raw.expand(len(labels), -1, *places), labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        if value.requires_grad:
            value.backward()
        return value

    with torch.no_grad():
        before = float(loss())
    optimizer.step(closure)
    with torch.no_grad():
        after = float(loss())
        if not (np.isfinite(after) and after <= before and bool(raw.isfinite().all())):
            raw.zero_()
        return kind.decode(task, raw.expand(1, -1, *places).contiguous()).numpy().astype(np.float32)

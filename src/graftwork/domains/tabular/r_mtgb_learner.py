"""R-MTGB in the race of ``graftwork fit``: targets of one kind are the tasks of one ensemble. The method:
:mod:`graftwork.domains.tabular.r_mtgb`.

Rows are stacked target by target, each with the rows where it is labelled, so that a suite may have all targets on every row or
one on each. Values of regression targets are standardised and share trees; binary targets, labels and targets of two classes
share trees; targets of more classes share trees with those of the same classes. A group of one target is plain boosting. In the
first fifth of the steps both common blocks are run, so that the race compares models that already have trees of their own. The
iteration with the best validation loss counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import write_bytes, write_json
from graftwork.core.input_kinds import join_kinds
from graftwork.core.input_spec import write_input_specs
from graftwork.core.records import Ledger, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import labelled_rows
from graftwork.domains.tabular.checkpoint_files import (
    named_damage,
    read_arrays,
    read_index,
    tensor_bytes,
    write_arrays,
    write_index,
)
from graftwork.domains.tabular.r_mtgb_forest import Blocks
from graftwork.domains.tabular.r_mtgb_group import Member, TaskGroup
from graftwork.domains.tabular.regression_tree import TreeShape
from graftwork.domains.tabular.tree_tables import IndicatorTable
from graftwork.domains.tabular.trees_onnx import arrange_columns, export_trees, output_names
from graftwork.evaluation.memory import current_rss_bytes
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.interfaces.task_kind import task_kind

__all__ = ["RMTGBLearner"]

Array = NDArray[Any]
FORMAT = "graftwork-r-mtgb-1"
_LEAD = 0.2


class RMTGBLearner(Learner):
    """Robust multi-task gradient boosting over the targets of a table.

    Args:
        context: A table suite; ``max_steps`` sets the number of iterations. Overrides of the training loop do not apply to trees.
        iterations_per_step: Iterations for each step of the horizon, on average.
        shares: Shares of the iterations that the three blocks get, each at least 0; they add up to 1.
        learning_rate: Shrinkage of each tree, above 0.
        max_leaf_nodes: Most leaves of a tree, at least 2.
        max_depth: Most splits on the way to a leaf.
        patience: Steps without gain on the validation rows after which a group stops, in the last block.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        context: LearnerContext,
        *,
        iterations_per_step: float = 3.0,
        shares: Sequence[float] = (0.1, 0.4, 0.5),
        learning_rate: float = 0.1,
        max_leaf_nodes: int | None = 8,
        max_depth: int | None = None,
        patience: int = 15,
    ) -> None:
        super().__init__(context)
        suite = context.suite
        if suite.kinds != ("table",):
            raise DataError(f"R-MTGB needs a table; the suite {suite.name!r} has the inputs: {join_kinds(suite.kinds)}.")
        if len(shares) != 3 or not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise ConfigError(f"`shares` must be three numbers of at least 0 that add up to 1; got {list(shares)}.")
        total = max(3, round(iterations_per_step * context.max_steps))
        first, second = round(shares[0] * total), round(shares[1] * total)
        # The rest, not a third rounding: the three add up to the total.
        self._blocks = Blocks(first, second, total - first - second)
        self._patience = round(patience * iterations_per_step)
        self._shape = TreeShape(max_leaf_nodes, max_depth)
        self._learning_rate = learning_rate
        self._table = IndicatorTable(suite)
        if not self._table.columns:
            raise DataError(f"The suite {suite.name!r} has no feature column.")
        members: dict[tuple[str, ...], list[Member]] = {}
        for task in suite.tasks:
            for member in _members(task, np.asarray(suite.targets[task.name])):
                members.setdefault(member.key, []).append(member)
        self._groups = [self._group(index, found) for index, found in enumerate(members.values())]
        self._step = 0
        self._wall = self._cpu = 0.0
        self._peak = 0

    def _group(self, index: int, members: list[Member]) -> TaskGroup:
        suite = self.context.suite
        # One target has nothing to share.
        blocks = self._blocks if len(members) > 1 else Blocks(0, 0, self._blocks.total)
        return TaskGroup(
            members,
            self._table.matrix(suite.inputs),
            suite.splits["train"],
            suite.splits["val"],
            blocks=blocks,
            learning_rate=self._learning_rate,
            shape=self._shape,
            patience=self._patience,
            seed=Seeds(self.context.seed).integer(f"group {index}"),
        )

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return self._step

    def _iterations_at(self, step: int, blocks: Blocks) -> int:
        """Return how many iterations are finished after ``step`` steps."""
        early = blocks.shared + blocks.robust
        lead = max(1, round(_LEAD * self.context.max_steps)) if early else 0
        # Until `lead` both common blocks are spread evenly, afterwards the tasks' own trees are.
        if step < lead:
            return round(early * step / lead)
        rest = max(1, self.context.max_steps - lead)
        return early + round(blocks.specific * min(1.0, (step - lead) / rest))

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Boost until ``step == until`` or no group gains any more."""
        started, cpu = time.perf_counter(), time.process_time()
        try:
            while self._step < min(until, self.context.max_steps) and not all(group.is_done for group in self._groups):
                for group in self._groups:
                    group.advance_to(self._iterations_at(self._step + 1, group.blocks))
                self._step += 1
                if on_progress is not None:
                    on_progress(self._step)
        finally:
            self._wall += time.perf_counter() - started
            self._cpu += time.process_time() - cpu
            self._peak = max(self._peak, current_rss_bytes())

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the best iterations so far."""
        x = self._table.matrix(inputs if inputs is not None else self.context.suite.inputs, rows)
        asked = {task.name: task for task in self.context.suite.tasks if tasks is None or task.name in tasks}
        parts: dict[str, list[Array]] = {name: [] for name in asked}
        for group in self._groups:
            if any(member.task.name in asked for member in group.members):
                for member, found in zip(group.members, group.predict(x), strict=True):
                    if member.task.name in asked:
                        parts[member.task.name].append(found)
        return {name: _arrange(asked[name], found) for name, found in parts.items()}

    def _arrays(self) -> dict[str, Array]:
        return {f"{index}.{name}": array for index, group in enumerate(self._groups) for name, array in group.arrays().items()}

    def save(self, folder: Path) -> None:
        """Write the trees as safetensors, and ``boosting.json`` last."""
        name = write_arrays(Path(folder), "trees", self._arrays())
        state = [group.state() for group in self._groups]
        values = {"file": name, "step": self._step, "groups": state, "wall": self._wall, "cpu": self._cpu}
        write_index(Path(folder) / "boosting.json", FORMAT, self.context, values)

    def load(self, folder: Path) -> None:
        """Restore :meth:`save`'s checkpoint.

        Raises:
            CheckpointError: If it is damaged, of another version, or belongs to another run.
        """
        folder = Path(folder)
        with named_damage("R-MTGB", folder):
            stored = read_index(folder / "boosting.json", FORMAT, self.context)
            arrays = read_arrays(folder, stored["file"])
            for index, (group, state) in enumerate(zip(self._groups, stored["groups"], strict=True)):
                prefix = f"{index}."
                group.restore(
                    state, {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
                )
            self._step, self._wall, self._cpu = int(stored["step"]), float(stored["wall"]), float(stored["cpu"])

    def ledger(self) -> Ledger:
        """Return the costs so far; a split and each value of a leaf count as two numbers and as one, a task's weight as one."""
        numbers = sum(group.count_numbers() for group in self._groups)
        return Ledger(
            parameters_total=numbers,
            parameters_trained=numbers,
            parameters_stored=numbers,
            steps=self.step,
            samples=self.step * len(self.context.suite.splits["train"]),
            wall_seconds=self._wall,
            cpu_seconds=self._cpu,
            peak_rss_bytes=self._peak,
        )

    def export(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``config.json`` and the checked ``model.onnx``."""
        folder, suite = Path(folder), self.context.suite
        write_bytes(folder / "model.safetensors", tensor_bytes(self._arrays()))
        dumped: dict[str, list[Any]] = {name: [] for name in suite.task_names}
        weights: dict[str, list[float]] = {name: [] for name in suite.task_names}
        for group in self._groups:
            for member, trees, share in zip(group.members, group.dumps(self._table), group.task_weights(), strict=True):
                dumped[member.task.name].append(trees)
                weights[member.task.name].append(share)
        rows = suite.splits["test"][:64] if len(suite.splits["test"]) else suite.splits["train"][:64]
        difference = export_trees(dumped, suite, folder / "model.onnx", self.predict(rows), rows)
        write_json(
            folder / "config.json",
            {
                "learner": "r-mtgb",
                "format": FORMAT,
                "plan": self.context.plan.to_json(),
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": output_names(suite),
                "input_specs": write_input_specs(suite.input_specs),
                "groups": [{"tasks": [member.task.name for member in group.members], **group.state()} for group in self._groups],
                "columns": self._table.columns,
                "task_weights": weights,
                "onnx_max_difference": difference,
            },
        )


def _members(task: TaskSpec, target: Array) -> list[Member]:
    """Return the parts of a task that are boosted, one per value of a vector target and per label."""
    columns = task_kind(task).label_columns(task, target)
    if not columns:
        raise DataError(f"R-MTGB cannot learn the task {task.name!r} ({task.kind_words}): it is not made of classes or numbers.")
    members = []
    for index, column in enumerate(columns):
        values = column.values
        key: tuple[str, ...] = ("squared_error",) if column.form == "number" else ("binary",)
        if column.form == "classes":
            values = np.where(labelled_rows(values), values, np.nan).astype(np.float64)
            if column.num_classes > 2:
                # Only targets of the same classes can share trees: a leaf has one value for each class.
                key = ("softmax", str(task.size), *(task.classes or (task.name,)))
        members.append(Member(task, values, key, index))
    return members


def _arrange(task: TaskSpec, parts: list[Array]) -> Array:
    """Return a task's parts ``[N, 1]`` or ``[N, C]`` as ``Learner.predict`` lays them out."""
    return arrange_columns(task, np.concatenate(parts, axis=1)).astype(np.float32)

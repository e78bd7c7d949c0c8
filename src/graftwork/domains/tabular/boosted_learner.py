"""Learners of boosted trees, one model per target, whichever library grows them: slices, checkpoints, costs, export.

They share nothing between tasks. A step is a boosting round (or several) of every target that still gains.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.files import write_json, write_text
from graftwork.core.input_kinds import join_kinds
from graftwork.core.input_spec import write_input_specs
from graftwork.core.records import Ledger, TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.domains.tabular.boosting import BoosterData, SteppedBooster
from graftwork.domains.tabular.checkpoint_files import named_damage, read_index, read_named_text, write_index, write_named_text
from graftwork.domains.tabular.label_blocks import MOST_CLASSES
from graftwork.domains.tabular.trees_onnx import arrange_columns, export_trees, output_names
from graftwork.evaluation.memory import current_rss_bytes
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.class_weights import column_weights

__all__ = ["BoostedLearner", "design_matrix"]

Array = NDArray[Any]


def design_matrix(inputs: Mapping[str, Array], rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float32]:
    """Return the columns that the trees see, float32 ``[N, F + C]``: numbers, then category codes."""
    parts = [np.asarray(inputs[name][rows], dtype=np.float32) for name in ("numeric", "categorical") if name in inputs]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


class BoostedLearner(Learner):
    """Boosted trees for every target, every value of a vector target and every label of a multi-label target.

    Args:
        context: A table suite; ``max_steps`` is the most steps. Overrides of the training loop do not apply to trees.
        patience: Steps without gain on the validation rows after which a target stops.

    Raises:
        MissingDependencyError: If the library is not installed.
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words: ClassVar[str]
    """What the library is called."""
    slug: ClassVar[str]
    """What the learner is called in files."""
    suffix: ClassVar[str] = "json"
    """Of the files with the models of single targets."""

    def __init__(self, context: LearnerContext, *, patience: int) -> None:
        super().__init__(context)
        suite = context.suite
        if suite.kinds != ("table",):
            raise DataError(f"{self.words} needs a table; the suite {suite.name!r} has the inputs: {join_kinds(suite.kinds)}.")
        self._patience = patience
        self._wall = self._cpu = 0.0
        self._peak = 0
        self._matrices: dict[bytes, Array] = {}
        self._boosters = {task.name: self._make(task) for task in suite.tasks}
        self._matrices.clear()

    @abstractmethod
    def booster(self, data: BoosterData, objective: str, num_classes: int) -> SteppedBooster:
        """Return an untrained booster.

        Args:
            data: Its rows, as :meth:`design` lays them out.
            objective: ``regression``, ``binary`` or ``multiclass``.
            num_classes: Classes of a multiclass target; 1 otherwise.
        """

    def design(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> Array:
        """Return the columns that the trees see."""
        return design_matrix(inputs, rows)

    @property
    def categorical(self) -> Sequence[int]:
        """Columns of :meth:`design` that hold category codes."""
        return ()

    @property
    def _format(self) -> str:
        return f"graftwork-{self.slug}-1"

    def _make(self, task: TaskSpec) -> list[SteppedBooster]:
        suite = self.context.suite
        columns = task_kind(task).label_columns(task, np.asarray(suite.targets[task.name]))
        if not columns:
            raise DataError(
                f"{self.words} cannot learn the task {task.name!r} ({task.kind_words}): it is not made of classes or numbers."
            )
        boosters = []
        for index, column in enumerate(columns):
            if column.form == "classes" and column.num_classes > MOST_CLASSES:
                raise DataError(
                    f"{self.words} grows a tree for each class in every round: it learns targets of at most {MOST_CLASSES} classes, and "
                    f"{task.name!r} has {column.num_classes}. Leave the plan out, or join rare classes."
                )
            # Two classes need one tree a round, not two.
            many = column.num_classes if column.form == "classes" and column.num_classes > 2 else 1
            objective = "regression" if column.form == "number" else "multiclass" if many > 1 else "binary"
            boosters.append(self._one(task, column.values, objective, many, column_weights(task, index)))
        return boosters

    def _one(
        self, task: TaskSpec, target: Array, objective: str, num_classes: int, weights: NDArray[np.float64] | None
    ) -> SteppedBooster:
        suite = self.context.suite
        known = labelled_rows(target)
        train, val = (rows[known[rows]] for rows in (suite.splits["train"], suite.splits["val"]))
        if len(train) == 0:
            raise DataError(f"Task {task.name!r} has no labelled training row.")
        data = BoosterData(
            self._matrix(train),
            np.asarray(target[train], dtype=np.float64),
            self._matrix(val),
            np.asarray(target[val], dtype=np.float64),
            self.categorical,
            *(None if weights is None else weights[target[rows].astype(np.int64)] for rows in (train, val)),
        )
        return self.booster(data, objective, num_classes)

    def _matrix(self, rows: NDArray[np.int64]) -> Array:
        """Return the columns of some rows; tasks that are labelled in the same rows share them."""
        key = np.asarray(rows).tobytes()
        if key not in self._matrices:
            self._matrices[key] = self.design(self.context.suite.inputs, rows)
        return self._matrices[key]

    @property
    def boosters(self) -> Mapping[str, Sequence[SteppedBooster]]:
        """The boosters of each task, one a label column."""
        return self._boosters

    @property
    def _all(self) -> list[SteppedBooster]:
        return [booster for group in self._boosters.values() for booster in group]

    @property
    def step(self) -> int:
        """Number of finished boosting rounds."""
        return max((booster.rounds for booster in self._all), default=0)

    @property
    def still_improving(self) -> bool:
        """Whether a target gained within the last few of its rounds."""
        return any(booster.rounds - booster.best_rounds < self._patience // 5 and booster.rounds > 1 for booster in self._all)

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Boost until ``step == until`` or no target gains any more."""
        started, cpu = time.perf_counter(), time.process_time()
        try:
            while self.step < until and (learning := [booster for booster in self._all if not booster.is_done]):
                for booster in learning:  # all of them stand at the same round: who is done never comes back
                    booster.advance()
                if on_progress is not None:
                    on_progress(self.step)
        finally:
            self._wall += time.perf_counter() - started
            self._cpu += time.process_time() - cpu
            self._peak = max(self._peak, current_rss_bytes())

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the best rounds so far."""
        x = self.design(inputs if inputs is not None else self.context.suite.inputs, rows)
        asked = [task for task in self.context.suite.tasks if tasks is None or task.name in tasks]
        return {task.name: _arrange(task, [booster.predict(x) for booster in self._boosters[task.name]]) for task in asked}

    def save(self, folder: Path) -> None:
        """Write the boosters in the library's own format, as text, and ``boosters.json`` last."""
        folder = Path(folder)
        state = {
            task: [{"file": write_named_text(folder, self.suffix, booster.to_text()), **booster.state()} for booster in group]
            for task, group in self._boosters.items()
        }
        values = {"boosters": state, "wall": self._wall, "cpu": self._cpu}
        write_index(folder / "boosters.json", self._format, self.context, values)

    def load(self, folder: Path) -> None:
        """Restore :meth:`save`'s checkpoint.

        Raises:
            CheckpointError: If it is damaged, of another version, or belongs to another run.
        """
        folder = Path(folder)
        with named_damage(self.words, folder):
            stored = read_index(folder / "boosters.json", self._format, self.context, any_horizon=self.ignores_horizon)
            for task, group in self._boosters.items():
                for entry, booster in zip(stored["boosters"][task], group, strict=True):
                    booster.restore(entry, read_named_text(folder, entry["file"]))
            self._wall, self._cpu = float(stored["wall"]), float(stored["cpu"])

    def ledger(self) -> Ledger:
        """Return the costs so far; a leaf counts as two numbers, its value and about one threshold."""
        numbers = 2 * sum(booster.num_leaves() for booster in self._all)
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

    def own_costs(self) -> dict[str, Ledger]:
        """Return the numbers of each task's trees."""
        numbers = {task: 2 * sum(booster.num_leaves() for booster in group) for task, group in self._boosters.items()}
        return {task: Ledger(parameters_total=own, parameters_stored=own) for task, own in numbers.items()}

    def export(self, folder: Path) -> None:
        """Write one text file a booster, ``config.json`` and the checked ``model.onnx``."""
        folder = Path(folder)
        files = {}
        for task, group in self._boosters.items():
            index = self.context.suite.task_names.index(task)
            files[task] = [f"task{index}-{number}.{self.suffix}" for number in range(len(group))]
            for name, booster in zip(files[task], group, strict=True):
                write_text(folder / name, booster.to_text(best=True))
        suite = self.context.suite
        rows = suite.splits["test"][:64] if len(suite.splits["test"]) else suite.splits["train"][:64]
        difference = export_trees(self._boosters, suite, folder / "model.onnx", self.predict(rows), rows)
        write_json(
            folder / "config.json",
            {
                "learner": self.slug,
                "format": self._format,
                "plan": self.context.plan.to_json(),
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": output_names(suite),
                "input_specs": write_input_specs(suite.input_specs),
                "boosters": files,
                "onnx_max_difference": difference,
            },
        )


def _arrange(task: TaskSpec, parts: list[NDArray[np.float64]]) -> Array:
    """Return booster outputs as ``Learner.predict`` lays them out."""
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return arrange_columns(task, values).astype(np.float32)

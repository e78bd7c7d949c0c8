"""The base of learners that are fitted in one go: one step, a state of arrays, a checkpoint of safetensors and JSON, one graph.

A model is a flat mapping from names to arrays and a few facts in JSON. What predicts, in NumPy and in the graph, reads these
arrays and nothing else, so that a checkpoint needs no library to be opened.
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
from graftwork.core.files import write_bytes, write_json
from graftwork.core.input_kinds import join_kinds
from graftwork.core.input_spec import write_input_specs
from graftwork.core.records import Ledger
from graftwork.domains.tabular.checkpoint_files import (
    named_damage,
    read_arrays,
    read_index,
    tensor_bytes,
    write_arrays,
    write_index,
)
from graftwork.domains.tabular.label_blocks import LabelBlock, answers_of, graph_answers, label_blocks
from graftwork.domains.tabular.one_thread import one_thread
from graftwork.domains.tabular.suite_graph import GraphBuilder, output_names
from graftwork.evaluation.memory import current_rss_bytes
from graftwork.interfaces.learner import Learner, LearnerContext

__all__ = ["BlockLearner", "OneShotLearner", "State"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
State = dict[str, Array]
_NUMBERS = 4_000_000
"""Numbers that are worked on at a time in prediction."""


class OneShotLearner(Learner):
    """Fitted at the first call of :meth:`train`; a second step does not help. Overrides of the training loop do not apply.

    Linear algebra runs on one thread, so that the numbers do not depend on how many there are.
    """

    words: ClassVar[str]
    """What it is, in a few words for messages."""
    slug: ClassVar[str]
    """What it is called in files."""

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        self._state: State = {}
        self._facts: dict[str, Any] = {}
        self._step = 0
        self._wall = self._cpu = 0.0
        self._peak = 0

    @abstractmethod
    def fit(self) -> tuple[State, dict[str, Any]]:
        """Return the arrays of the model, and facts for people."""

    @abstractmethod
    def answers(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the answers of all tasks; of an untrained model if ``state`` is empty."""

    @abstractmethod
    def graph_answers(self, graph: GraphBuilder, state: State) -> dict[str, str]:
        """Add the model to a graph; return ``{task: name}``."""

    def count_numbers(self, state: State) -> int:
        """Return how many numbers the model is made of."""
        return sum(array.size for array in state.values())

    @property
    def step(self) -> int:
        """Number of finished steps: 1 when it is fitted."""
        return self._step

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Fit, unless that is done."""
        if until < 1 or self._step:
            return
        started, cpu = time.perf_counter(), time.process_time()
        try:
            with one_thread():
                self._state, self._facts = self.fit()
            self._step = 1
        finally:
            self._wall += time.perf_counter() - started
            self._cpu += time.process_time() - cpu
            self._peak = max(self._peak, current_rss_bytes())
        if on_progress is not None:
            on_progress(1)

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return the answers of the fitted model; before that, what is best without looking at the inputs."""
        source = inputs if inputs is not None else self.context.suite.inputs
        with one_thread():
            found = self.answers(self._state, source, np.asarray(rows))
        return {name: found[name] for name in self.context.suite.task_names if tasks is None or name in tasks}

    @property
    def _format(self) -> str:
        return f"graftwork-{self.slug}-1"

    def save(self, folder: Path) -> None:
        """Write the arrays as safetensors, and ``model.json`` last."""
        name = write_arrays(Path(folder), "model", self._state)
        values = {"file": name, "step": self._step, "facts": self._facts, "wall": self._wall, "cpu": self._cpu}
        write_index(Path(folder) / "model.json", self._format, self.context, values)

    def load(self, folder: Path) -> None:
        """Restore :meth:`save`'s checkpoint.

        Raises:
            CheckpointError: If it is damaged, of another version, or belongs to another run.
        """
        folder = Path(folder)
        with named_damage(self.words, folder):
            stored = read_index(folder / "model.json", self._format, self.context)
            self._state, self._facts = read_arrays(folder, stored["file"]), dict(stored["facts"])
            self._step, self._wall, self._cpu = int(stored["step"]), float(stored["wall"]), float(stored["cpu"])

    def ledger(self) -> Ledger:
        """Return the costs so far; every stored number counts."""
        numbers = self.count_numbers(self._state)
        return Ledger(
            parameters_total=numbers,
            parameters_trained=numbers,
            parameters_stored=numbers,
            steps=self._step,
            samples=self._step * len(self.context.suite.splits["train"]),
            wall_seconds=self._wall,
            cpu_seconds=self._cpu,
            peak_rss_bytes=self._peak,
        )

    def export(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``config.json`` and the checked ``model.onnx``."""
        folder, suite = Path(folder), self.context.suite
        write_bytes(folder / "model.safetensors", tensor_bytes(self._state))
        rows = suite.splits["test"][:64] if len(suite.splits["test"]) else suite.splits["train"][:64]
        graph = GraphBuilder(suite)
        outputs = self.graph_answers(graph, self._state)
        difference = graph.write(outputs, folder / "model.onnx", self.predict(rows), rows, what=self.words)
        write_json(
            folder / "config.json",
            {
                "learner": self.slug,
                "format": self._format,
                "plan": self.context.plan.to_json(),
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": output_names(suite),
                "input_specs": write_input_specs(suite.input_specs),
                "facts": self._facts,
                "onnx_max_difference": difference,
            },
        )


class BlockLearner(OneShotLearner):
    """Learns label columns of a table: numbers and classes.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    has_own_models: ClassVar[bool] = False
    """Whether arrays of the state whose names begin with the number of a block are needed for that block alone."""

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        suite = context.suite
        if suite.kinds != ("table",):
            raise DataError(
                f"The learner {self.words!r} needs a table; the suite {suite.name!r} has the inputs: {join_kinds(suite.kinds)}."
            )
        self.blocks: list[LabelBlock] = label_blocks(suite, f"The learner {self.words!r}")

    @abstractmethod
    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return ``[n, width]`` of each block: standardised numbers, or probabilities."""

    @abstractmethod
    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add :meth:`scores` to a graph; return the names of double values."""

    def numbers_of_row(self, state: State, inputs: Mapping[str, Array]) -> int:
        """Return how many numbers are held for a row while it is predicted, roughly."""
        return sum(array.shape[1] for name, array in inputs.items() if name in ("numeric", "categorical"))

    def own_costs(self) -> dict[str, Ledger]:
        """Return the numbers of the models that answer for one task alone."""
        found: dict[str, int] = {}
        for index, block in enumerate(self.blocks if self.has_own_models else ()):
            own = {name: array for name, array in self._state.items() if name.startswith(f"{index}.")}
            found[block.task.name] = found.get(block.task.name, 0) + self.count_numbers(own)
        return {task: Ledger(parameters_total=numbers, parameters_stored=numbers) for task, numbers in found.items()}

    @property
    def train_rows(self) -> Rows:
        """Training rows of the suite."""
        return self.context.suite.splits["train"]

    def answers(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """Return the answers, some thousand rows at a time."""
        if not state:
            shares = [block.shares(block.labelled(self.train_rows)) for block in self.blocks]
            return answers_of(self.blocks, [np.tile(share, (len(rows), 1)) for share in shares])
        size = int(np.clip(_NUMBERS // max(self.numbers_of_row(state, inputs), 1), 64, 4096))
        parts = [
            answers_of(self.blocks, self.scores(state, inputs, rows[start : start + size]))
            for start in range(0, max(len(rows), 1), size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def graph_answers(self, graph: GraphBuilder, state: State) -> dict[str, str]:
        """Add the model to a graph; return ``{task: name}``."""
        return graph_answers(graph, self.blocks, self.graph_scores(graph, state))

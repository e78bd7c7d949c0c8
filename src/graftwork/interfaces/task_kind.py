"""TaskKind: everything that depends on what a task predicts, one module a kind, found by name.

A kind decides how targets are laid out, how wide the head is, what the loss is, how raw outputs become answers in the user's
units, how answers are scored, how columns of a table become a target, and in which words and JSON an answer is shown. No other
module asks which kind a task has. To add one, add a module to :mod:`graftwork.tasks.kinds` that sets ``KIND``; nothing else is
edited. A kind outside the package is made known with :func:`graftwork.core.kinds.register_kind`.

A module holds both halves of its kind. Readers, prediction and servers run without torch, so a kind imports torch inside the
methods
that get tensors, never at the top: one place to read what a kind is, and no second module to keep in step.

How the hardest kinds fit:

- An answer for every pixel (or point, step, node) is a kind ``over_positions`` of its own, under the same name: what is a good
  loss for one answer a row may be a poor one for thousands of them.
- Survival reads two columns, a time and an event, and needs to know where its time intervals end: ``fit_spec`` computes that
  from the training rows and keeps it in ``TaskSpec.details``.
- Ranking and embeddings compare rows with each other: loss and metrics see whole batches, and the target says which rows belong
  together. Their metrics are evaluators of row weights like all others.
- Missing labels are -1 in integer targets and NaN in float targets, for every kind, so that loaders and guards need not ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.kinds import all_kinds, find_kind
from graftwork.core.records import TaskSpec
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array, Metric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["ColumnCount", "LabelColumn", "TaskKind", "column_kinds", "task_kind", "taught_kinds"]


ColumnCount = Literal["", "one", "one or several", "several"]
"""How many columns of a table a target is made of."""


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One question of a task that one label a row answers: what trees learn, and what splits and leak checks look at."""

    form: Literal["classes", "flag", "number"]
    """``flag`` is a label that applies or not."""
    values: Array
    """``[N]``: int64 with -1 where missing (classes), or floats with NaN (flags as 0 and 1, numbers in the user's units)."""
    num_classes: int = 2
    """Number of classes; 2 for flags, without meaning for numbers."""


class TaskKind(ABC):
    """What a task of this kind is. Methods get the task's ``spec``; kinds hold no state."""

    name: ClassVar[str]
    """What ``TaskSpec.kind`` holds."""
    words: ClassVar[str]
    """The kind in a few words, for reports."""
    metrics: ClassVar[tuple[Metric, ...]]
    """Metrics that can judge it, the default first."""
    over_positions: ClassVar[bool] = False
    """Whether it gives one answer for every position of a row."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """Older names, each with the positions that it stands for."""
    reads_columns: ClassVar[ColumnCount] = ""
    """How many columns of a table can be such a target; empty if none can."""
    reads_lists: ClassVar[bool] = False
    """Whether the cells of its column may be lists."""
    one_value_suffices: ClassVar[bool] = False
    """Whether a column of equal cells can be learned from."""

    answer_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """JSON schemas of what :meth:`answers` returns besides ``value``, ``probability``, ``probabilities``, ``values``, ``map``,
    ``maps`` and ``classes``."""
    compares_rows: ClassVar[bool] = False
    """Whether its loss compares rows of a batch with each other, so that it is no mean over rows."""

    own_space: ClassVar[bool] = False
    """Whether each model answers in a space of its own, so that answers of two models for two rows cannot be compared."""

    can_be_taught: ClassVar[bool] = False
    """Whether :meth:`raw_output` and :meth:`read_answers` can be asked: answers of such a task are enough of a teacher."""

    has_thresholds: ClassVar[bool] = False
    """Whether its answers are yes where a probability is above ``details["thresholds"]`` (see
    :mod:`graftwork.tasks.thresholds`)."""
    has_class_thresholds: ClassVar[bool] = False
    """Whether its answer is the class whose probability is the largest multiple of its own of ``details["thresholds"]``."""

    # --- layout ---

    def num_outputs(self, spec: TaskSpec) -> int:
        """Return the width of the head."""
        return spec.size

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return what is wrong with the fields of a task, one sentence each."""
        return ()

    def fit_spec(self, spec: TaskSpec, target: Array) -> TaskSpec:
        """Return the task with what it takes from the targets of the training rows (center and scale of values, say)."""
        return spec

    def class_weighted(self, spec: TaskSpec, asked: str, target: Array) -> TaskSpec:
        """Return the task with weights of its classes in the loss, from the targets of the training rows.

        Args:
            spec: The task.
            asked: ``balanced``: all classes weigh the same together.
            target: Targets of the training rows.

        Raises:
            ConfigError: If the task is not made of classes or labels, or nothing of that name can be asked.
        """
        raise ConfigError(
            f"Task {spec.name!r} ({spec.kind_words}) has no classes to weigh. Class weights are for binary, multiclass, ordinal and "
            "multilabel tasks with one answer a row."
        )

    @abstractmethod
    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of :meth:`decode`'s result, for targets of ``target_shape``; both begin with the number of rows."""

    # --- learning: tensors, torch imported inside ---

    @abstractmethod
    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the mean loss over the labelled entries, a scalar near 1 at the start; 0 with zero gradients if nothing is
        labelled.

        Shapes in the graph must not depend on the values of ``target``.

        Args:
            spec: The task.
            output: Raw outputs of the head, ``[B, num_outputs]`` or ``[B, num_outputs, *positions]``.
            target: Targets in the user's units.
            robust: Whether the user asks for a loss that outliers move less, for kinds that have one.
        """

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return :meth:`loss` for a target that has all its labels; kinds may skip the mask."""
        return self.loss(spec, output, target, robust=robust)

    @abstractmethod
    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return over how many entries :meth:`loss` takes its mean, an integer scalar."""

    @abstractmethod
    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of the best constant prediction, a scalar; NaN if nothing is labelled."""

    @abstractmethod
    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return answers in the user's units from raw outputs; exportable to ONNX."""

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return raw outputs ``[N, num_outputs]`` of which :meth:`decode` makes these answers, float64: the way back.

        Args:
            spec: The task.
            answers: As :meth:`decode` lays them out.

        Raises:
            ConfigError: If the kind has no way back.
        """
        raise ConfigError(
            f"Predictions of the task {spec.name!r} ({spec.kind_words}) cannot be taught as they are; those of the kinds "
            f"{', '.join(taught_kinds())} can. Give the teacher's run folder, or its features."
        )

    def class_probabilities(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each class, ``[B, C]``, of raw outputs.

        Raises:
            ConfigError: If an answer is not one class a row.
        """
        raise ConfigError(f"The task {spec.name!r} ({spec.kind_words}) does not answer with one class a row.")

    @abstractmethod
    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return how far ``output`` is from ``reference``, a scalar of at least 0, for raw outputs of equal shape."""

    def mirror(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the target of pictures flipped left to right."""
        # The last dimension of positions is the horizontal one.
        return target.flip(-1) if self.over_positions else target

    # --- scoring ---

    def scored(self, spec: TaskSpec, target: Array, prediction: Array) -> tuple[Array, Array]:
        """Return target and prediction as the metrics take them.

        Raises:
            DataError: If the shapes do not fit.
        """
        expected = self.answer_shape(spec, target.shape)
        if prediction.shape != expected:
            raise DataError(
                f"Task {spec.name!r} ({spec.kind_words}): the prediction must have shape {list(expected)}; "
                f"got {list(prediction.shape)}."
            )
        return target, prediction

    # --- data ---

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task that one column of a table becomes; ``reason`` says why it is of this kind.

        Raises:
            DataError: If the cells do not fit.
        """
        wanted = f"reads {self.reads_columns} columns" if self.reads_columns else "cannot be read from a table"
        raise DataError(f"Target {request.name!r}: a {self.name} task {wanted}. Choose another kind, or other columns.")

    def read_columns(self, request: TargetRequest, frame: pd.DataFrame | Table) -> InferredTask:
        """Return the task that several columns of a table become.

        Raises:
            DataError: If the columns do not fit.
        """
        raise DataError(
            f"Target {request.name!r} has several columns, so it can be {_several_column_kinds()}; got {self.name!r}. "
            "Name one column for other kinds."
        )

    def label_columns(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return the target as columns of simple labels; empty if it is none, and trees cannot learn it."""
        return []

    def row_groups(self, spec: TaskSpec, target: Array) -> Array | None:
        """Return which rows belong together, int64 ``[N]``, -1 for rows that stand alone: splits keep them on one side unless
        the user names a group. None if rows are independent."""
        return None

    def strata(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return what splits deal out evenly."""
        return self.label_columns(spec, target)

    # --- people ---

    def size_words(self, spec: TaskSpec) -> str:
        """Return how large the task is, for the sentence that says how it was read; empty if that needs no word."""
        return ""

    @abstractmethod
    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return the columns of answers ``[N, ...]`` in a table of predictions.

        Raises:
            ConfigError: If a table cannot hold them.
        """

    @abstractmethod
    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return one JSON object per row; what is not finite is None."""

    def read_answers(self, spec: TaskSpec, columns: Mapping[str, Array], *, hard: float) -> Array | None:
        """Return answers from the columns that :meth:`table` writes, as :meth:`decode` lays them out; None if they are not there.

        Args:
            spec: The task.
            columns: Columns of a table by name, ``[N]`` each.
            hard: Probability of a class of which a table holds nothing but the name.

        Raises:
            ConfigError: If a cell names no class of the task.
            DataError: If a cell is no number where one is expected.
        """
        return None

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return one target or answer in words; empty if it is missing or cannot be said in a line."""
        return ""

    def is_right(self, spec: TaskSpec, truth: Array, prediction: Array) -> bool | None:
        """Return whether the answer of one row is right; None if it is neither right nor wrong, or not known."""
        return None


def task_kind(spec: TaskSpec) -> TaskKind:
    """Return the kind of a task."""
    return cast(TaskKind, find_kind(spec.kind, spec.positions))


def column_kinds() -> tuple[str, ...]:
    """Return the names of the kinds that a column of a table, or several, can become."""
    return tuple(kind.name for kind in cast(Sequence[TaskKind], all_kinds()) if kind.reads_columns)


def taught_kinds() -> tuple[str, ...]:
    """Return the names of the kinds whose answers are enough of a teacher."""
    return tuple(kind.name for kind in cast(Sequence[TaskKind], all_kinds()) if kind.can_be_taught)


def _several_column_kinds() -> str:
    names = [kind.name for kind in cast(Sequence[TaskKind], all_kinds()) if "several" in kind.reads_columns]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

"""What kinds have in common that give one class a row: how columns become classes, how classes are shown and judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.target_arrays import class_target
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn, TaskKind
from graftwork.tasks.answers import class_names, listed, named, numbers_of, stacked
from graftwork.tasks.class_weights import with_weights
from graftwork.tasks.thresholds import chosen_class

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClassKind"]


class ClassKind(TaskKind):
    """One class a row, ``[N]`` int64, -1 where missing."""

    reads_columns: ClassVar[ColumnCount] = "one"
    can_be_taught: ClassVar[bool] = True

    def num_classes(self, spec: TaskSpec) -> int:
        """Return the number of classes."""
        return spec.size

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size]``: a probability for each class."""
        return (target_shape[0], spec.size)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of rows with a label."""
        return (target >= 0).sum()

    def class_weighted(self, spec: TaskSpec, asked: str, target: Array) -> TaskSpec:
        """Return the task with a weight for each class."""
        return with_weights(spec, asked, np.bincount(target[target >= 0], minlength=self.num_classes(spec)))

    def class_probabilities(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each class, ``[B, C]``."""
        return self.decode(spec, output)

    # --- data ---

    def spec_size(self, order: Sequence[str]) -> int:
        """Return ``size`` of a task with these classes."""
        return len(order)

    def class_order(self, cells: TargetCells) -> list[str]:
        """Return the order that classes get when the user gives none."""
        # "10" sorts before "9" as text.
        return sorted(cells.distinct, key=float) if cells.are_numbers else cells.distinct

    @abstractmethod
    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return why these classes cannot be of this kind; empty if they can."""

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task whose classes are the different cells, in the user's order if there is one.

        Raises:
            DataError: If a cell is none of the classes given, or the classes do not fit the kind.
        """
        order = list(request.classes if request.kind else ()) or self.class_order(cells)
        unknown = sorted(set(cells.levels) - set(order))
        if unknown:
            raise DataError(
                f"Target {request.name!r} holds {short_list(map(repr, unknown))}, not among the classes given: "
                f"{short_list(order)}. Add them to the list."
            )
        problem = self.order_problem(request, cells, order)
        if problem:
            raise DataError(f"Target {request.name!r} {problem}")
        return self.build(request, cells, order, reason)

    def build(self, request: TargetRequest, cells: TargetCells, order: Sequence[str], reason: str) -> InferredTask:
        """Return the task with its classes in ``order``."""
        spec = TaskSpec(
            name=request.name,
            kind=self.name,
            size=self.spec_size(order),
            classes=tuple(order),
            columns=request.columns,
            metric=request.metric,
        )
        return InferredTask(spec, reason, class_target(cells.codes, cells.levels, order))

    def label_columns(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return the classes."""
        return [LabelColumn("classes", target, self.num_classes(spec))]

    # --- people ---

    def size_words(self, spec: TaskSpec) -> str:
        """Return the number of classes."""
        return f" with {max(len(spec.classes), 2)} classes"

    def shares(self, values: Array) -> Array:
        """Return the probability of every class, ``[N, C]``, of answers."""
        return values

    def chosen(self, spec: TaskSpec, values: Array) -> Array:
        """Return the class of each row that a table shows, ``[N]``."""
        return chosen_class(spec, values)

    def decided(self, spec: TaskSpec, value: Array) -> int:
        """Return the class that one row's answer stands for."""
        return int(chosen_class(spec, np.reshape(value, (1, -1)))[0])

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task`` (the class) and ``task_probability`` of that class, and ``task[class]`` of every class if asked."""
        chosen, shares = self.chosen(spec, values), self.shares(values)
        names = np.asarray(class_names(spec, shares.shape[1]), dtype=object)
        columns: dict[str, Array] = {
            spec.name: names[chosen],
            f"{spec.name}_probability": np.take_along_axis(shares, chosen[:, None], 1)[:, 0],
        }
        if probabilities:
            columns |= {f"{spec.name}[{name}]": shares[:, index] for index, name in enumerate(names)}
        return columns

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value`` (name of the class), its ``probability``, and ``probabilities`` by class if asked."""
        columns = {name: listed(column) for name, column in self.table(spec, values, probabilities=probabilities).items()}
        found: list[dict[str, Any]] = [
            {"value": value, "probability": share}
            for value, share in zip(columns[spec.name], columns[f"{spec.name}_probability"], strict=True)
        ]
        if probabilities:
            names = class_names(spec, self.shares(values).shape[1])
            for one, row in zip(found, zip(*(columns[f"{spec.name}[{name}]"] for name in names), strict=True), strict=True):
                one["probabilities"] = dict(zip(names, row, strict=True))
        return found

    def unshared(self, shares: Array) -> Array:
        """Return answers with these probabilities of every class, ``[N, C]``: the way back from :meth:`shares`."""
        return shares

    def read_answers(self, spec: TaskSpec, columns: Mapping[str, Array], *, hard: float) -> Array | None:
        """Return the columns ``task[class]``, or those of the class and its probability; the other classes share the rest."""
        if spec.classes and (shares := stacked(spec.name, spec.classes, columns)) is not None:
            return self.unshared(shares)
        if spec.name not in columns:
            return None
        numbers = {str(name): number for number, name in enumerate(spec.classes)}
        labels = [str(value) for value in columns[spec.name].tolist()]
        wrong = sorted(set(labels) - set(numbers))
        if wrong:
            raise ConfigError(
                f"Predictions of {spec.name!r} name {wrong[0]!r:.60}, which is no class; classes: {', '.join(numbers)}."
            )
        share = f"{spec.name}_probability"
        probable = numbers_of(share, columns[share]) if share in columns else np.full(len(labels), hard)
        found = np.repeat(((1.0 - probable) / max(len(numbers) - 1, 1))[:, None], len(numbers), axis=1)
        found[np.arange(len(labels)), [numbers[label] for label in labels]] = probable
        return self.unshared(found)

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the class, with its probability if it is a prediction."""
        if not is_prediction:
            return named(spec, int(value)) if int(value) >= 0 else ""
        index = self.decided(spec, value)
        return f"{named(spec, index)} ({100 * self.share_of(value, index):.0f} %)"

    def share_of(self, value: Array, index: int) -> float:
        """Return the probability of one class in one row's answer."""
        return float(value[index])

    def is_right(self, spec: TaskSpec, truth: Array, prediction: Array) -> bool | None:
        """Return whether the class is right; None without a label."""
        return self.decided(spec, prediction) == int(truth) if int(truth) >= 0 else None

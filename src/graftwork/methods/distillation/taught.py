"""What objectives of distillation have in common: stored answers of several teachers, looked up by row, and weights of
teachers."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.data.teacher_answers import TeacherAnswers, read_answers
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.adversarial import pool_features
from graftwork.nn.module_taps import tapped_modules
from graftwork.nn.representation import representation_of

__all__ = ["TappedStudent", "Taught", "answered_tasks", "at_least_0", "rows_of"]

Array = NDArray[Any]


def at_least_0(name: str, value: float) -> float:
    """Return a factor that is a number of at least 0.

    Raises:
        ConfigError: If it is none.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{name} must be a number of at least 0; got {value!r}.")
    return float(value)


def rows_of(array: Array, batch: Batch) -> Tensor:
    """Return the rows of a batch of one answer, float32, where the batch is.

    Raises:
        ConfigError: If the array has fewer rows than the suite.
    """
    if batch.rows.device.type == "meta":  # no values to look up: shapes alone are asked for
        return torch.zeros((len(batch), *array.shape[1:]), device="meta")
    rows = batch.rows.cpu().numpy()
    if len(rows) and int(rows.max()) >= len(array):
        raise ConfigError(
            f"The answers of a teacher have {len(array)} rows, and the batch holds row {int(rows.max())} of the suite. They "
            f"were made for other data: let graftwork distill make them again."
        )
    # Indexing copies these rows alone out of the mapped file.
    return torch.from_numpy(np.asarray(array[rows], dtype=np.float32)).to(batch.rows.device)


def answered_tasks(teacher: TeacherAnswers, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Return the tasks for which a teacher has outputs.

    Raises:
        ConfigError: If there is none, or its outputs have another layout than the student's.
    """
    shared = [task for task in tasks if task.name in teacher.outputs]
    if not shared:
        names = ", ".join(task.name for task in tasks)
        raise ConfigError(
            f"The teacher {teacher.name} answers none of the tasks {names}. Distil its features in place of its outputs."
        )
    for task in shared:
        found = teacher.outputs[task.name].shape[1]
        if found != task.num_outputs:
            raise ConfigError(
                f"The teacher {teacher.name} gives {found} outputs for the task {task.name}, the student {task.num_outputs}. "
                f"They were trained for other classes."
            )
    return shared


class Taught(Objective):
    """A term that pulls the student towards stored answers of teachers.

    Args:
        answers: Folders that :func:`graftwork.data.teacher_answers.store_answers` wrote for the rows of this suite.
        weight: Factor of the whole term, at least 0.
        teacher_weights: Weight of each teacher, at least 0; they are scaled to the sum 1. None weighs them alike.

    Raises:
        ConfigError: If a number is out of range, or the numbers of teachers and weights differ.
    """

    def __init__(self, answers: Sequence[str] = (), weight: float = 1.0, teacher_weights: Sequence[float] | None = None) -> None:
        self.folders = (answers,) if isinstance(answers, str) else tuple(map(str, answers))
        self.weight = at_least_0("weight", weight)
        if teacher_weights is not None and len(teacher_weights) != len(self.folders):
            raise ConfigError(
                f"teacher_weights must hold one weight a teacher ({len(self.folders)}); got {len(teacher_weights)}."
            )
        given = [at_least_0("teacher_weights", item) for item in teacher_weights or [1.0] * len(self.folders)]
        if given and not sum(given) > 0:
            raise ConfigError(f"teacher_weights must have one weight above 0; got {given}.")
        self.shares = tuple(item / sum(given) for item in given)
        self.teachers: tuple[TeacherAnswers, ...] = ()

    def bind(self, binding: Binding) -> None:
        """Read the answers, and make what the objective learns itself.

        Raises:
            ConfigError: If there are none, or none that the objective can use.
            FileFormatError: If they are gone or damaged.
        """
        if not self.folders:
            raise ConfigError(
                f"{type(self).__name__} has no answers of teachers. `graftwork distill --teacher ...` writes them and names "
                f"them in its plan; in a plan of your own, set `answers` to the folders that store_answers returned."
            )
        self.teachers = tuple(map(read_answers, self.folders))
        self.made(binding)

    @abstractmethod
    def made(self, binding: Binding) -> None:
        """Check that the answers are of use, and make :attr:`module`."""

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted sum over teachers, times :attr:`weight`."""
        total, student = inputs.losses.new_zeros(()), self.compared(inputs)
        for number, share in enumerate(self.shares):
            if share > 0:
                total = total + share * self.term(number, student, inputs)
        return self.weight * total

    def compared(self, inputs: ObjectiveInputs) -> Tensor:
        """Return what of the student all teachers are compared with; called once a step. By default its losses, which nobody
        reads."""
        return inputs.losses

    @abstractmethod
    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return the term of one teacher, a scalar.

        Args:
            number: Of the teacher.
            student: What :meth:`compared` returned.
            inputs: The step.
        """


class TappedStudent(Taught):
    """A term on what one module of the student gives, or on the shared representation.

    Args:
        answers: See :class:`Taught`.
        weight: Likewise.
        teacher_weights: Likewise.
        tap: Path of a module of the student's model (see :func:`graftwork.nn.module_taps.find_module`); empty takes the
            representation that all tasks share.
        teacher_tap: Path of the tapped module of the teachers; empty takes their features.
    """

    def __init__(
        self,
        answers: Sequence[str] = (),
        weight: float = 1.0,
        teacher_weights: Sequence[float] | None = None,
        *,
        tap: str = "",
        teacher_tap: str = "",
    ) -> None:
        super().__init__(answers, weight, teacher_weights)
        self.tap, self.teacher_tap = tap, teacher_tap
        self._seen: Tensor | None = None

    @contextlib.contextmanager
    def watching(self, model: SharedModel) -> Iterator[None]:
        """Tap the module during one forward pass."""
        if not self.tap:
            yield
            return
        with tapped_modules(model, [self.tap]) as found:
            yield
        self._seen = found.get(self.tap)

    def states(self, inputs: ObjectiveInputs) -> Tensor:
        """Return what is compared: the module's output in the step's forward pass, or the representation; part of the graph.

        Raises:
            ConfigError: If the module did not run, or the model shares no representation.
        """
        found = self._seen if self.tap else inputs.representation
        self._seen = None  # its graph ends with this step
        return self._there(found)

    def example_states(self, binding: Binding) -> Tensor:
        """Return the same for the first batch, without a graph, for shapes.

        Raises:
            ConfigError: As :meth:`states`.
        """
        with tapped_modules(binding.model, [self.tap] if self.tap else []) as found:
            shared = representation_of(binding.model, binding.example.to(binding.device))
        return self._there(found.get(self.tap) if self.tap else shared)

    def _there(self, states: Tensor | None) -> Tensor:
        if states is None:
            what = (
                f"The module {self.tap!r} did not run" if self.tap else "The student shares no representation between its tasks"
            )
            raise ConfigError(f"{what}, so {type(self).__name__} has nothing to compare. Name a module with `tap`.")
        return states

    def vectors(self, teacher: TeacherAnswers) -> Array:
        """Return the vectors of a teacher that are compared, ``[N, width]``.

        Raises:
            ConfigError: If the teacher has none.
        """
        found = teacher.vectors.get(self.teacher_tap) if self.teacher_tap else teacher.features
        if found is None:
            what = f"outputs of its module {self.teacher_tap!r}" if self.teacher_tap else "features"
            held = ", ".join(teacher.arrays())
            raise ConfigError(f"The stored answers of {teacher.name} hold no {what}; they hold {held}.")
        return found

    def compared(self, inputs: ObjectiveInputs) -> Tensor:
        """Return one vector a row, ``[B, width]``: of maps and tokens the mean over places."""
        return pool_features(self.states(inputs))

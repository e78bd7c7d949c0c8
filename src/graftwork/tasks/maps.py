"""What kinds have in common that give one answer for each position of a row: pixels, points, steps or nodes."""

from __future__ import annotations

from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import TaskKind
from graftwork.tasks.answers import map_answers

__all__ = ["MapKind"]


class MapKind(TaskKind):
    """Outputs and answers ``[N, channels, *positions]``. Comes first among the bases of a kind, so that its answers win."""

    over_positions = True

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the target: values have their channels on axis 1."""
        return target_shape

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Refuse: a table has one cell a row.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"Task {spec.name!r} predicts one value for each of its {spec.positions}, which a table cannot hold. "
            "Use Predictor.predict_arrays for it, or name the other tasks with --tasks."
        )

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``map``, nested lists of numbers, or ``maps``, one for each channel; what is not finite is None."""
        return map_answers(values)

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return nothing: a map cannot be said in a line."""
        return ""

    def size_words(self, spec: TaskSpec) -> str:
        """Return nothing."""
        return ""

"""From arrays of predictions to the columns of a table that people read. No torch."""

from __future__ import annotations

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import task_kind

__all__ = ["prediction_columns"]


def prediction_columns(spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
    """Return the columns of one task.

    Args:
        spec: The task.
        values: Predictions in the user's units, as ``Learner.predict`` lays them out.
        probabilities: Whether to add one column ``task[class]`` per class of binary, multiclass and ordinal tasks.

    Returns:
        Classification: ``task`` (name of the most probable class; class 1 of a binary task above 0.5) and ``task_probability``
            of that
        class. Multi-label: ``task[label]`` with the probability of each label. Regression: ``task``, or ``task[column]`` if the
        task has
        several values. Other kinds: see their modules.

    Raises:
        ConfigError: If the task predicts per position: a table cannot hold that.
    """
    return task_kind(spec).table(spec, values, probabilities=probabilities)

"""From arrays of predictions to the columns of a table that people read. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec

__all__ = ["prediction_columns"]

Array = NDArray[Any]


def prediction_columns(spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
    """Return the columns of one task.

    Args:
        spec: The task.
        values: Predictions in the user's units, as ``Learner.predict`` lays them out.
        probabilities: Whether to add one column ``task[class]`` per class of binary, multiclass and ordinal tasks.

    Returns:
        Classification: ``task`` (name of the most probable class; class 1 of a binary task from 0.5 on) and ``task_probability`` of that
        class. Multi-label: ``task[label]`` with the probability of each label. Regression: ``task``, or ``task[column]`` if the task has
        several values.

    Raises:
        ConfigError: If the task predicts per pixel: a table cannot hold that.
    """
    if spec.is_dense:
        raise ConfigError(
            f"Task {spec.name!r} predicts one value per pixel, which a table cannot hold. Use Predictor.predict_arrays for it, "
            "or name the other tasks with --tasks."
        )
    if spec.kind == "regression":
        values = values.reshape(len(values), -1)
        if values.shape[1] == 1:
            return {spec.name: values[:, 0]}
        return {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(_value_names(spec, values.shape[1]))}
    if spec.kind == "multilabel":
        return {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(_class_names(spec, values.shape[1]))}
    if spec.kind == "binary":
        positive = values.reshape(-1)
        values = np.stack([1.0 - positive, positive], axis=1)
        chosen = (positive >= 0.5).astype(np.int64)
    else:
        chosen = values.argmax(axis=1)
    names = np.asarray(_class_names(spec, values.shape[1]), dtype=object)
    columns: dict[str, Array] = {
        spec.name: names[chosen],
        f"{spec.name}_probability": np.take_along_axis(values, chosen[:, None], 1)[:, 0],
    }
    if probabilities:
        columns |= {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(names)}
    return columns


def _class_names(spec: TaskSpec, size: int) -> list[str]:
    return list(spec.classes) if len(spec.classes) == size else [str(index) for index in range(size)]


def _value_names(spec: TaskSpec, size: int) -> list[str]:
    return list(spec.columns) if len(spec.columns) == size else [str(index) for index in range(size)]

"""From arrays of predictions to JSON, one object per row and task. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.serving.columns import prediction_columns

__all__ = ["prediction_rows"]

Array = NDArray[Any]


def prediction_rows(
    specs: Sequence[TaskSpec], values: Mapping[str, Array], *, probabilities: bool = False
) -> list[dict[str, dict[str, Any]]]:
    """Return one object ``{task: prediction}`` per row.

    Args:
        specs: The tasks that were asked.
        values: Their predictions, ``{task: array}``.
        probabilities: Whether to add the probability of every class.

    Returns:
        Per task: ``value`` (class name, number, or names of the labels from 0.5 on), ``probability`` of that class, ``probabilities`` by
        class or label (labels always), ``values`` by column for regressions with several. Tasks that predict per pixel have ``map``, rows
        of pixels: class numbers, probabilities or numbers; with several numbers per pixel one map for each, under ``maps``. What is not
        finite is null.
    """
    by_task = [_one_task(spec, values[spec.name], probabilities) for spec in specs]
    return [dict(zip((spec.name for spec in specs), row)) for row in zip(*by_task)]


def _one_task(spec: TaskSpec, values: Array, probabilities: bool) -> list[dict[str, Any]]:
    if spec.is_dense:
        return [_dense(spec, row) for row in values]
    columns = {
        name: _listed(column)
        for name, column in prediction_columns(spec, values, probabilities=probabilities or spec.kind == "multilabel").items()
    }
    parts = {name[len(spec.name) + 1 : -1]: column for name, column in columns.items() if name.startswith(f"{spec.name}[")}
    groups = [dict(zip(parts, row)) for row in zip(*parts.values())] if parts else [{}] * len(values)
    found: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        one: dict[str, Any] = {}
        if spec.name in columns:
            one["value"] = columns[spec.name][index]
        if spec.kind == "multilabel":
            one["value"] = [name for name, share in group.items() if share is not None and share >= 0.5]
        if f"{spec.name}_probability" in columns and spec.kind not in ("regression", "multilabel"):
            one["probability"] = columns[f"{spec.name}_probability"][index]
        if group:
            one["values" if spec.kind == "regression" else "probabilities"] = group
        found.append(one)
    return found


def _listed(column: Array) -> list[Any]:
    """Return a column as JSON values; numbers that are not finite become None."""
    if column.dtype.kind != "f":
        return column.tolist()
    return [value if math.isfinite(value) else None for value in column.tolist()]


def _dense(spec: TaskSpec, row: Array) -> dict[str, Any]:
    """Return one prediction per pixel of one picture, ``row`` being ``[C, H, W]``."""
    if spec.kind == "dense_multiclass":
        classes = list(spec.classes) or [str(index) for index in range(row.shape[0])]
        return {"map": row.argmax(axis=0).tolist(), "classes": classes}
    rounded = np.round(row.astype(np.float64), 4).astype(object)
    rounded[~np.isfinite(row)] = None
    channels: list[Any] = rounded.tolist()
    return {"map": channels[0]} if len(channels) == 1 else {"maps": channels}

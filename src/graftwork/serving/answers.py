"""From arrays of predictions to JSON, one object per row and task. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import task_kind

__all__ = ["prediction_rows", "to_json"]


def prediction_rows(
    specs: Sequence[TaskSpec],
    values: Mapping[str, Array],
    *,
    probabilities: bool = False,
    around: Mapping[str, Array] | None = None,
) -> list[dict[str, dict[str, Any]]]:
    """Return one object ``{task: prediction}`` per row.

    Args:
        specs: The tasks that were asked.
        values: Their predictions, ``{task: array}``.
        probabilities: Whether to add the probability of every class.
        around: ``{task: [size]}``, how far the ends of intervals are from the numbers of a task.

    Returns:
        Per task: ``value`` (class name, number, or names of the labels above their thresholds), ``probability`` of that class,
            ``probabilities`` by
        class or label (labels always), ``values`` by column for regressions with several. Tasks that predict per position have
        ``map``,
        rows of pixels: class numbers, probabilities or numbers; with several numbers per pixel one map for each, under ``maps``.
            What is
        not finite is null. Numbers with an interval have ``low`` and ``high``, by column if there are several.
    """
    by_task = [task_kind(spec).answers(spec, values[spec.name], probabilities=probabilities) for spec in specs]
    for spec, answers in zip(specs, by_task, strict=True):
        if around and spec.name in around:
            for answer in answers:
                answer |= _ends(answer, around[spec.name])
    return [dict(zip((spec.name for spec in specs), row)) for row in zip(*by_task)]


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return an answer as JSON.

    Rows go to the encoder one by one: it is one call that lets no other thread run, and the maps of a thousand pictures are large.

    Args:
        content: With the rows under ``predictions``, which comes first.
    """
    encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
    rows = ",".join([encode(row) for row in content["predictions"]])
    rest = encode({key: value for key, value in content.items() if key != "predictions"})
    return f'{{"predictions":[{rows}],{rest[1:]}'.encode("ascii")


def _ends(answer: Mapping[str, Any], widths: Array) -> dict[str, Any]:
    """Return the ends of the intervals of one answer; of what is null they are null."""
    if "values" not in answer:
        middle, width = answer["value"], float(widths[0])
        return {"low": None if middle is None else middle - width, "high": None if middle is None else middle + width}
    pairs = list(zip(answer["values"].items(), widths.tolist(), strict=True))
    return {
        "low": {name: None if middle is None else middle - width for (name, middle), width in pairs},
        "high": {name: None if middle is None else middle + width for (name, middle), width in pairs},
    }

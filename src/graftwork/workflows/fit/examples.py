"""Sample predictions of the chosen plan on test rows, for the report: pictures, texts, truth beside prediction."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import has
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["describe_value", "sample_predictions"]

Array = NDArray[Any]
NUM_EXAMPLES = 24
PICTURE_SIDE = 96
TEXT_LENGTH = 300


def _number(value: float) -> str:
    return f"{value:.4g}"


def _class_index(task: TaskSpec, prediction: Array) -> int:
    if task.kind == "binary":
        return int(float(np.ravel(prediction)[0]) >= 0.5)
    if task.kind == "ordinal":  # the median class: what a scale with an order asks for
        return int(np.searchsorted(np.cumsum(prediction), 0.5 - 1e-9).clip(0, task.size - 1))
    return int(np.argmax(prediction))


def _class_name(task: TaskSpec, index: int) -> str:
    return task.classes[index] if 0 <= index < len(task.classes) else str(index)


def describe_value(task: TaskSpec, value: Array, *, is_prediction: bool) -> str:
    """Return one target or prediction in words; empty for dense tasks and missing labels.

    Example:
        >>> task = TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes"))
        >>> describe_value(task, np.array(0.8), is_prediction=True)
        'yes (80 %)'
    """
    if task.is_dense:
        return ""
    if task.kind == "regression":
        numbers = np.ravel(value)
        return "" if np.isnan(numbers).all() else ", ".join(_number(float(item)) for item in numbers)
    if task.kind == "multilabel":
        if np.isnan(value).all():
            return ""
        names = [_class_name(task, int(index)) for index in np.flatnonzero(np.nan_to_num(value) >= 0.5)]
        return ", ".join(names) or "none"
    if not is_prediction:
        return _class_name(task, int(value)) if int(value) >= 0 else ""
    index = _class_index(task, value)
    share = float(np.ravel(value)[0]) if task.kind == "binary" else float(value[index])
    share = 1 - share if task.kind == "binary" and index == 0 else share
    return f"{_class_name(task, index)} ({100 * share:.0f} %)"


def _is_correct(task: TaskSpec, truth: Array, prediction: Array) -> bool | None:
    if task.kind in ("binary", "multiclass", "ordinal") and int(truth) >= 0:
        return _class_index(task, prediction) == int(truth)
    if task.kind == "multilabel" and not np.isnan(truth).any():
        return bool(((prediction >= 0.5) == (truth >= 0.5)).all())
    return None


def _picture(suite: Suite, row: int) -> str | None:
    pictures = suite.raw.get("preview", suite.inputs.get("image"))
    if pictures is None or not has("PIL"):
        return None
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pictures[row]).astype(np.uint8))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def sample_predictions(
    suite: Suite, predictions: Mapping[str, Array], *, seed: int = 0, number: int = NUM_EXAMPLES
) -> list[dict[str, Any]]:
    """Return ``examples`` of ``result.json``.

    Args:
        suite: The suite.
        predictions: ``{task: prediction}`` for the test rows, in their order.
        seed: Seed of the choice of rows; rows with many labels come first.
        number: How many.
    """
    rows = suite.splits["test"]
    known = np.sum([labelled_rows(np.asarray(suite.targets[task.name][rows])) for task in suite.tasks], axis=0)
    order = Seeds(seed).numpy("examples").permutation(len(rows))
    chosen = sorted(order[np.argsort(-known[order], kind="stable")][:number].tolist())
    texts, labels = suite.raw.get("text"), suite.raw.get("labels")
    examples = []
    for position in chosen:
        row = int(rows[position])
        truth = {task.name: np.asarray(suite.targets[task.name][row]) for task in suite.tasks}
        guess = {task.name: np.asarray(predictions[task.name][position]) for task in suite.tasks if task.name in predictions}
        examples.append(
            {
                "row": row,
                "label": str(labels[row]) if labels is not None else f"row {row}",
                "picture": _picture(suite, row),
                "text": str(texts[row])[:TEXT_LENGTH] if texts is not None else None,
                "truth": {task.name: describe_value(task, truth[task.name], is_prediction=False) for task in suite.tasks},
                "prediction": {
                    task.name: describe_value(task, guess[task.name], is_prediction=True)
                    for task in suite.tasks
                    if task.name in guess
                },
                "correct": {
                    task.name: _is_correct(task, truth[task.name], guess[task.name]) for task in suite.tasks if task.name in guess
                },
            }
        )
    return examples

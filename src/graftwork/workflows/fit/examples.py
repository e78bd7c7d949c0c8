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
from graftwork.interfaces.task_kind import task_kind

__all__ = ["describe_value", "sample_predictions"]

Array = NDArray[Any]
NUM_EXAMPLES = 24
PICTURE_SIDE = 96
TEXT_LENGTH = 300


def describe_value(task: TaskSpec, value: Array, *, is_prediction: bool) -> str:
    """Return one target or prediction in words; empty for answers over positions and missing labels.

    Example:
        >>> task = TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes"))
        >>> describe_value(task, np.array(0.8), is_prediction=True)
        'yes (80 %)'
    """
    return task_kind(task).describe(task, value, is_prediction=is_prediction)


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
    # The stable sort keeps the random order among rows with equally many labels.
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
                # Missing labels and answers over positions are neither right nor wrong.
                "correct": {
                    task.name: task_kind(task).is_right(task, truth[task.name], guess[task.name])
                    for task in suite.tasks
                    if task.name in guess
                },
            }
        )
    return examples

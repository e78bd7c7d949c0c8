"""How a plan predicts, task by task, for people to look at: predictions beside the truth, errors, mistakes, calibration.

Everything is bounded, so that ``result.json`` stays small: some points, ten bins, twenty classes, and no more than a few numbers of
each task beyond the first dozen. Tasks that are not made of classes or numbers (survival times, rankings, answers over positions)
have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.evaluation.calibration import calibration, rounded
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import LabelColumn, task_kind
from graftwork.tasks.answers import class_names
from graftwork.tasks.thresholds import chosen_class, says_yes

__all__ = ["diagnose", "diagnose_task"]

MOST_POINTS = 1_000
"""Points of one task."""
MOST_POINTS_IN_ALL = 8_000
MOST_DETAILED = 12
"""Tasks with points, bins and counts."""
MOST_VALUES = 6
"""Values that are looked at of a task that predicts several."""
MOST_CLASSES = 20
NUM_BINS = 10
_LEAST_ROWS_OF_A_BIN = 10
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def diagnose(
    suite: Suite, predictions: Mapping[str, Array], *, decided: Mapping[str, Array] | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return ``diagnostics`` of ``result.json``, ``{task: ...}`` as :func:`diagnose_task` describes.

    Args:
        suite: The suite; its test rows are those that were predicted.
        predictions: ``{task: prediction}`` for them, in their order.
        decided: ``{task: decisions}``; see :func:`diagnose_task`.
        seed: Seed of the choice of points.
    """
    rows = suite.splits["test"]
    most = min(MOST_POINTS, MOST_POINTS_IN_ALL // max(1, min(len(suite.tasks), MOST_DETAILED)))
    found: dict[str, dict[str, Any]] = {}
    for task in suite.tasks:
        if task.name in predictions:
            target = np.asarray(suite.targets[task.name][rows])
            prediction, own = np.asarray(predictions[task.name]), (decided or {}).get(task.name)
            made = diagnose_task(task, target, prediction, decided=own, seed=seed, most_points=most)
            if made is not None:
                found[task.name] = made if len(found) < MOST_DETAILED else _in_short(made)
    return found


def _in_short(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few numbers for a table, without what plots show."""
    kept = {key: value for key, value in found.items() if key not in ("classes", "counts", "labels", "values")}
    if found.get("calibration"):
        kept["calibration"] = {key: value for key, value in found["calibration"].items() if key != "bins"}
    if "values" in found:
        kept["values"] = [{key: value for key, value in one.items() if key not in ("points", "bins")} for one in found["values"]]
    return kept


def diagnose_task(
    task: TaskSpec,
    target: Array,
    prediction: Array,
    *,
    decided: Array | None = None,
    seed: int = 0,
    most_points: int = MOST_POINTS,
) -> dict[str, Any] | None:
    """Return what can be seen of one task; None if it is not made of classes or numbers, or no row has a label.

    Args:
        task: The task.
        target: Truth of ``N`` rows.
        prediction: Answers, as learners lay them out.
        decided: What is decided in each row, laid out like the answers: true for yes, and for the class that is chosen. None decides by
            the thresholds of the task, which must not have been chosen on these rows.
        seed: Seed of the choice of points.
        most_points: Points of the whole task.

    Returns:
        ``form`` and what belongs to it. ``numbers``: ``values``, one entry a value with ``points`` (``truth``, ``prediction``), errors
        (prediction minus truth, in the user's units) as ``bias``, ``typical`` and ``nine_in_ten`` (half and 90 % of them are not
        larger), and ``bins`` over the prediction with quantiles of the error. ``classes``: ``counts`` (truth by prediction) for the
        ``classes`` with the most rows, further ones taken together at the end, ``right``, the commonest ``mistakes``, ``calibration``.
        ``labels``: ``labels`` with counts, and ``calibration`` of all of them together.
    """
    kind = task_kind(task)
    columns = kind.label_columns(task, target)
    forms = {column.form for column in columns}
    if len(forms) != 1 or not len(target):
        return None
    (form,) = forms
    if form == "number":
        return _numbers(task, target, prediction, seed, most_points)
    shares = np.asarray(prediction, dtype=np.float64).reshape(len(prediction), -1)
    if decided is None:
        decided = _decided(task, shares, is_one_of_several=form == "classes" and shares.shape[1] > 1)
    decided = np.asarray(decided, dtype=np.bool_).reshape(shares.shape)
    return (_classes if form == "classes" else _labels)(task, columns, shares, decided)


def _decided(task: TaskSpec, shares: Floats, *, is_one_of_several: bool) -> Array:
    """Return what the task's thresholds decide, bool ``[N, K]`` for shares ``[N, K]``."""
    if is_one_of_several:
        return np.asarray(chosen_class(task, shares)[:, None] == np.arange(shares.shape[1]))
    # In the type that thresholds are compared in everywhere.
    return says_yes(task, shares.astype(np.float32))


def _numbers(task: TaskSpec, target: Array, prediction: Array, seed: int, most_points: int) -> dict[str, Any] | None:
    # As a table of predictions shows them: names and units of the user.
    kind = task_kind(task)
    truths, answers = kind.table(task, target), kind.table(task, prediction)
    shown = list(answers)[:MOST_VALUES]
    values = []
    for name in shown:
        truth, answer = (np.asarray(part[name], dtype=np.float64) for part in (truths, answers))
        known = np.isfinite(truth) & np.isfinite(answer)
        if known.any():
            values.append({"name": name, **_value(truth[known], answer[known], seed, max(1, most_points // len(shown)))})
    return {"form": "numbers", "of": len(answers), "values": values} if values else None


def _value(truth: Floats, answer: Floats, seed: int, most_points: int) -> dict[str, Any]:
    error = answer - truth
    size = np.abs(error)
    order = Seeds(seed).numpy("diagnostics").permutation(len(truth))[:most_points]
    # A thousandth of the spread: finer differences are not seen in a plot.
    spread = float(np.std(truth)) or float(np.abs(truth).max()) or 1.0
    decimals = 3 - int(np.floor(np.log10(spread)))
    points = {"truth": np.round(truth[order], decimals).tolist(), "prediction": np.round(answer[order], decimals).tolist()}
    return {
        "rows": len(truth),
        "bias": rounded(float(error.mean())),
        "typical": rounded(float(np.quantile(size, 0.5))),
        "nine_in_ten": rounded(float(np.quantile(size, 0.9))),
        "largest": rounded(float(size.max())),
        "bins": _error_bins(answer, error),
        "points": points,
    }


def _error_bins(answer: Floats, error: Floats) -> list[dict[str, Any]]:
    """Return quantiles of the error in parts of the rows, by rising prediction; parts have nearly equally many rows."""
    order = np.argsort(answer, kind="stable")
    parts = np.array_split(order, max(1, min(NUM_BINS, len(order) // _LEAST_ROWS_OF_A_BIN)))
    return [
        {
            "prediction": rounded(float(np.median(answer[part]))),
            "rows": len(part),
            "error": [rounded(float(one)) for one in np.quantile(error[part], _QUANTILES)],
        }
        for part in parts
    ]


def _classes(task: TaskSpec, columns: list[LabelColumn], shares: Floats, decided: NDArray[np.bool_]) -> dict[str, Any] | None:
    column = columns[0]
    truth = np.asarray(column.values, dtype=np.int64)
    known = (truth >= 0) & np.isfinite(shares).all(axis=1)
    truth, shares, decided = truth[known], shares[known], decided[known]
    if not len(truth):
        return None
    is_binary = shares.shape[1] == 1
    chosen = decided[:, 0].astype(np.int64) if is_binary else decided.argmax(axis=1)
    number = max(column.num_classes, int(truth.max()) + 1, int(chosen.max()) + 1)
    names = class_names(task, number)
    right = truth == chosen
    said, happened = (shares[:, 0], truth == 1) if is_binary else (shares[np.arange(len(shares)), chosen], right)
    return {
        "form": "classes",
        "rows": len(truth),
        "right": int(right.sum()),
        **_confusion(truth, chosen, names),
        "mistakes": _mistakes(truth, chosen, names),
        # Of two classes the second one's probability says all; of more, that of the class that was chosen.
        "positive": names[1] if is_binary else "",
        "calibration": calibration(said, happened),
    }


def _confusion(truth: NDArray[np.int64], chosen: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """Return counts of truth (rows) by prediction (columns) for the classes with the most rows, in the order of the task."""
    number = len(names)
    rows = np.bincount(truth, minlength=number)
    kept = np.sort(np.argsort(-rows, kind="stable")[:MOST_CLASSES])
    others = number - len(kept)
    place = np.full(number, len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    size = len(kept) + (others > 0)
    counts = np.bincount(place[truth] * size + place[chosen], minlength=size * size).reshape(size, size)
    return {"classes": [names[index] for index in kept.tolist()], "others": others, "counts": counts.tolist()}


def _mistakes(truth: NDArray[np.int64], chosen: NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    """Return the five commonest mistakes, over all classes."""
    wrong = truth != chosen
    pairs, rows = np.unique(truth[wrong] * len(names) + chosen[wrong], return_counts=True)
    order = np.argsort(-rows, kind="stable")[:5]
    return [
        {"truth": names[pair // len(names)], "prediction": names[pair % len(names)], "rows": count}
        for pair, count in zip(pairs[order].tolist(), rows[order].tolist(), strict=True)
    ]


def _labels(task: TaskSpec, columns: list[LabelColumn], shares: Floats, decided: NDArray[np.bool_]) -> dict[str, Any] | None:
    truth = np.stack([np.asarray(column.values, dtype=np.float64) for column in columns], axis=1)
    if truth.shape != shares.shape:
        return None
    known = ~np.isnan(truth) & np.isfinite(shares)
    if not known.any():
        return None
    true, said = known & (truth > 0.5), known & decided
    names = class_names(task, truth.shape[1])
    order = np.sort(np.argsort(-true.sum(axis=0), kind="stable")[:MOST_CLASSES])
    return {
        "form": "labels",
        "rows": int(known.any(axis=1).sum()),
        "others": len(names) - len(order),
        "labels": [
            {"name": names[index], "true": int(a), "predicted": int(b), "both": int(c)}
            for index, a, b, c in zip(
                order.tolist(), true.sum(axis=0)[order], said.sum(axis=0)[order], (true & said).sum(axis=0)[order], strict=True
            )
        ],
        "calibration": calibration(shares[known], true[known]),
    }

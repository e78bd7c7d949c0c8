"""Permutation importance: how much worse a model predicts rows that it did not learn from if one column is shuffled among them.

Breiman, "Random Forests", Machine Learning 2001; Fisher, Rudin and Dominici, "All Models are Wrong, but Many are Useful", JMLR 2019.
What two columns say alike, each of them can lose without much harm: a small number does not show that a column holds nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.input_columns import InputColumn, exchange
from graftwork.evaluation.bootstrap import Resampler, percentile_interval, resample
from graftwork.evaluation.calibration import rounded
from graftwork.evaluation.metrics import default_metric, find_metric, prepare_metric
from graftwork.interfaces.metric import Array, Floats

__all__ = ["Predict", "harm_of", "screened_columns", "shuffled_answers", "task_importance"]

Predict = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""``{array: [N, ...]}`` in, ``{task: answers [N, ...]}`` out."""

NUM_RESAMPLES = 200
_BLOCK_ROWS = 4096
_BLOCK_BYTES = 64 * 2**20
"""Rows and bytes of inputs that are predicted at a time."""
_ROUNDING = 1e-9
"""Share of the score below which a loss is rounding."""
_FIRST_BLOCKS = 16
_PARTS = 4


def _order(column: str, repeat: int, number: int, seed: int) -> NDArray[np.int64]:
    """Return the rows from which a shuffled column takes its cells; no row keeps its own, where that can be."""
    generator = Seeds(seed).numpy(f"shuffle {repeat} {column}")
    # A cyclic shift in a random order: a permutation without fixed points.
    order = generator.permutation(number)
    found = np.empty(number, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def shuffled_answers(
    predict: Predict,
    inputs: Mapping[str, Array],
    groups: Sequence[Sequence[InputColumn]],
    *,
    repeats: Sequence[int] = (0,),
    seed: int = 0,
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Yield ``(group, repeat, {task: answers})`` with the columns of a group shuffled, all groups of a repeat before the next one.

    Several groups are predicted together. Equal seeds shuffle a column alike, whoever predicts.

    Args:
        predict: The model.
        inputs: Arrays of the rows, ``{array: [N, ...]}``.
        groups: Columns that are shuffled together; each column in its own order.
        repeats: Numbers of the repeats.
        seed: Seed of the orders.
    """
    number = len(next(iter(inputs.values())))
    each = sum(array.nbytes for array in map(np.asarray, inputs.values()))
    size = max(1, min(_BLOCK_ROWS // max(number, 1), _BLOCK_BYTES // max(each, 1)))
    wanted = [(group, repeat) for repeat in repeats for group in range(len(groups))]
    for start in range(0, len(wanted), size):
        part = wanted[start : start + size]
        arrays = {name: np.tile(array, (len(part), *(1,) * (np.ndim(array) - 1))) for name, array in inputs.items()}
        for place, (group, repeat) in enumerate(part):
            rows = slice(place * number, (place + 1) * number)
            for column in groups[group]:
                exchange(arrays, column, rows, inputs, _order(column.name, repeat, number, seed))
        answers = predict(arrays)
        for place, (group, repeat) in enumerate(part):
            rows = slice(place * number, (place + 1) * number)
            yield group, repeat, {task: np.asarray(values[rows]) for task, values in answers.items()}


def screened_columns(
    columns: Sequence[str], harm: Callable[[list[list[str]]], Sequence[float]], most: int, *, effort: int
) -> list[str]:
    """Return the columns that seem to matter most, where there is no time to shuffle each of them by itself.

    Blocks of columns are shuffled together; the block that does the most harm is divided, again and again.

    Args:
        columns: All columns.
        harm: Returns how much worse the model gets with the columns of each block shuffled.
        most: Columns to return, in the order of ``columns``.
        effort: Blocks that may be shuffled.
    """
    if len(columns) <= most:
        return list(columns)
    waiting: list[tuple[float, int, list[int]]] = []

    def add(blocks: list[list[int]]) -> None:
        found = harm([[columns[place] for place in block] for block in blocks])
        for block, value in zip(blocks, found, strict=True):
            heapq.heappush(waiting, (-value if np.isfinite(value) else 0.0, block[0], block))

    def divided(block: Sequence[int], number: int) -> list[list[int]]:
        return [part.tolist() for part in np.array_split(np.asarray(block), min(number, len(block)))]

    blocks = divided(range(len(columns)), _FIRST_BLOCKS)
    add(blocks)
    effort -= len(blocks)
    found: list[int] = []
    while waiting and len(found) < most:
        block = heapq.heappop(waiting)[2]
        # Without effort left, what is in the worst blocks is taken as it comes.
        if len(block) == 1 or effort < _PARTS:
            found += block
        else:
            blocks = divided(block, _PARTS)
            effort -= len(blocks)
            add(blocks)
    return [columns[place] for place in sorted(found[:most])]


def task_importance(
    task: TaskSpec,
    target: Array,
    base: Array,
    shuffled: Mapping[str, Sequence[Array]],
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    is_late: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Return the importance of columns for one task; None if its metric is undefined on these rows.

    Args:
        task: The task.
        target: Truth of ``N`` rows.
        base: Answers for them.
        shuffled: ``{column: answers, one array a repeat}``.
        groups: Group of each row, whole groups are resampled.
        seed: Seed of the resamples.
        is_late: Asked before each interval; from then on the others are left out.

    Returns:
        ``metric``, ``score`` (with nothing shuffled) and ``columns``, the most important first: ``column``, ``value`` (by how much the
        metric gets worse on average over the repeats, in its units; below 0 it got better) and ``low`` and ``high`` (95 %, bootstrap
        over rows or groups; None if there was no time).
    """
    metric = find_metric(default_metric(task))
    sign = 1.0 if metric.higher_is_better else -1.0
    evaluators = {name: [prepare_metric(task, target, one) for one in repeats] for name, repeats in shuffled.items()}
    own = prepare_metric(task, target, base)
    once = np.ones((1, len(target)))
    score = float(own(once)[0])
    if not np.isfinite(score):
        return None
    values = {name: sign * (score - float(np.mean([one(once)[0] for one in found]))) for name, found in evaluators.items()}
    resampler = Resampler(len(target), groups=groups, num_resamples=NUM_RESAMPLES, seed=seed)
    before = resample([resampler.adapt(own)], resampler)[0]
    rows = []
    for name in sorted(values, key=lambda name: (-_known(values[name]), name)):
        low = high = None
        if np.isfinite(values[name]) and not is_late():
            after = resample([resampler.adapt(one) for one in evaluators[name]], resampler).mean(axis=0)
            interval = percentile_interval(values[name], sign * (before - after))
            low, high = _number(interval.low, score), _number(interval.high, score)
        rows.append({"column": name, "value": _number(values[name], score), "low": low, "high": high})
    return {"metric": metric.name, "score": rounded(score), "columns": rows}


def _known(value: float) -> float:
    return value if np.isfinite(value) else -np.inf


def _number(value: float, score: float) -> float | None:
    if not np.isfinite(value):
        return None
    # What adding up in another order leaves is no loss: an interval that ends there must not look clear of zero.
    return rounded(value) if abs(value) > _ROUNDING * abs(score) else 0.0


def harm_of(
    tasks: Sequence[TaskSpec], targets: Mapping[str, Array], base: Mapping[str, Array], answers: Mapping[str, Array]
) -> float:
    """Return how much worse the answers are than ``base``, relative to its scores, as a mean over tasks."""
    found: list[float] = []
    for task in tasks:
        metric = find_metric(default_metric(task))
        once: Floats = np.ones((1, len(targets[task.name])))
        before, after = (float(prepare_metric(task, targets[task.name], one[task.name])(once)[0]) for one in (base, answers))
        if np.isfinite(before) and np.isfinite(after):
            change = before - after if metric.higher_is_better else after - before
            found.append(change / max(abs(before), 1e-12))
    return float(np.mean(found)) if found else 0.0

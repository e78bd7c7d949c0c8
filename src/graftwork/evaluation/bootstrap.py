"""Bootstrap over rows or groups: every plan, seed, task and metric sees the same resamples, so differences are paired.

A resample is a vector of counts per row (Efron's multinomial bootstrap); metrics are evaluated on blocks of such vectors. With
groups (patients, users, sites), whole groups are drawn, because rows of one group are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Interval, TaskSpec
from graftwork.evaluation.metrics import default_metric, find_metric, prepare_metric
from graftwork.interfaces.metric import Array, Evaluator, Floats
from graftwork.math.weighted_sums import SumsEvaluator

__all__ = ["Resampler", "bootstrap_metric", "bootstrap_statistic", "percentile_interval", "resample"]

_BLOCK_ENTRIES = 1 << 20
"""Counts held at a time: 8 MB."""
_MAX_UNITS = 2000
"""More rows than this are dealt at random into so many bundles that are drawn whole: same expected variance, a fraction of the
work."""


class Resampler:
    """A fixed, repeatable series of bootstrap resamples of ``num_rows`` rows.

    Args:
        num_rows: Rows to draw from, at least 1.
        groups: Group of each row, any integers ``[num_rows]``; whole groups are drawn. None draws rows.
        num_resamples: How many resamples, at least 2.
        seed: Equal seeds give equal resamples.

    Raises:
        ValueError: If a number is out of range or ``groups`` has another length.
    """

    def __init__(
        self, num_rows: int, *, groups: NDArray[np.integer[Any]] | None = None, num_resamples: int = 1000, seed: int = 0
    ) -> None:
        if num_rows < 1:
            raise ValueError(f"`num_rows` must be at least 1; got {num_rows}.")
        if num_resamples < 2:
            raise ValueError(f"`num_resamples` must be at least 2; got {num_resamples}.")
        if groups is not None and len(groups) != num_rows:
            raise ValueError(f"`groups` must have one entry a row ({num_rows}); got {len(groups)}.")
        self.num_rows = num_rows
        self.num_resamples = num_resamples
        self.seed = seed
        self._unit: NDArray[np.int64] | None = None
        if groups is not None:
            # Groups are any integers; units are counted from 0. reshape: some NumPy versions return the input's shape.
            self._unit = np.unique(groups, return_inverse=True)[1].reshape(-1)
        elif num_rows > _MAX_UNITS:
            # A stream of its own: the bundles must not depend on how many resamples are drawn.
            self._unit = np.random.default_rng([seed, 1]).permutation(num_rows) % _MAX_UNITS
        self.num_units = num_rows if self._unit is None else int(self._unit.max()) + 1
        """What is drawn: groups, rows, or bundles of rows."""

    def blocks(self) -> Iterator[Floats]:
        """Yield counts per unit in blocks ``[b, num_units]``, ``num_resamples`` in all; the same at every call."""
        rng = np.random.default_rng(self.seed)
        # The blocks depend on the sizes alone, so equal arguments give equal draws.
        size = max(1, _BLOCK_ENTRIES // self.num_units)
        for start in range(0, self.num_resamples, size):
            rows = min(size, self.num_resamples - start)
            drawn = rng.integers(self.num_units, size=(rows, self.num_units))
            # Shifted into a range of its own for each resample, so that one bincount counts them all.
            drawn += np.arange(rows)[:, None] * self.num_units
            counts = np.bincount(drawn.reshape(-1), minlength=rows * self.num_units)
            yield counts.reshape(rows, self.num_units).astype(np.float64)

    def row_counts(self, counts: Floats) -> Floats:
        """Return counts per row ``[b, num_rows]`` for counts per unit."""
        return counts if self._unit is None else counts[:, self._unit]

    def adapt(self, evaluator: Evaluator) -> Evaluator:
        """Return an evaluator of counts per unit for one of weights per row."""
        if self._unit is None:
            return evaluator
        if isinstance(evaluator, SumsEvaluator):
            # Sums over rows can be summed over units first, once, and not for each resample.
            return evaluator.collapse(self._unit, self.num_units)
        # Weights per row are wider than counts per unit: blocks of their own keep the memory down.
        size = max(1, _BLOCK_ENTRIES // self.num_rows)

        def evaluate(counts: Floats) -> Floats:
            parts = [counts[start : start + size] for start in range(0, len(counts), size)]
            return np.concatenate([evaluator(self.row_counts(part)) for part in parts])

        return evaluate


def resample(evaluators: Sequence[Evaluator], resampler: Resampler) -> Floats:
    """Evaluate all metrics on all resamples.

    Args:
        evaluators: From :meth:`Resampler.adapt` of the same ``resampler``.
        resampler: The resamples.

    Returns:
        Values ``[E, num_resamples]``; NaN where a resample leaves a metric undefined.
    """
    blocks = [np.stack([evaluate(counts) for evaluate in evaluators]) for counts in resampler.blocks()] if evaluators else []
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((0, resampler.num_resamples))


def percentile_interval(
    value: float, draws: Array, *, level: float = 0.95, low: float = -np.inf, high: float = np.inf
) -> Interval:
    """Return the central ``level`` of the draws around ``value``, NaN draws left out, cut to ``[low, high]``.

    The interval is NaN if ``value`` is, or if fewer than half of the draws are defined.
    """
    known = np.asarray(draws)[~np.isnan(draws)]
    # If most draws are undefined, an interval over the others would be too sure.
    if np.isnan(value) or 2 * len(known) < len(draws) or not len(known):
        return Interval(value, float("nan"), float("nan"), level)
    tail = (1 - level) / 2
    bottom, top = np.clip(np.quantile(known, [tail, 1 - tail]), low, high)
    return Interval(value, float(bottom), float(top), level)


def bootstrap_metric(
    spec: TaskSpec,
    target: Array,
    prediction: Array,
    metric: str = "",
    *,
    groups: NDArray[np.integer[Any]] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a metric of one prediction with its bootstrap interval over rows (or groups).

    Args:
        spec: The task.
        target: Truth of ``N`` rows.
        prediction: Prediction in the user's units for the same rows.
        metric: Name; empty takes the task's primary metric.
        groups: Group of each row, ``[N]``, or None.
        num_resamples: Resamples.
        seed: Seed of the resamples.
        level: Confidence, in (0, 1).
    """
    chosen = find_metric(metric or default_metric(spec))
    evaluate = prepare_metric(spec, target, prediction, chosen.name)
    value = float(evaluate(np.ones((1, len(target))))[0])
    resampler = Resampler(len(target), groups=groups, num_resamples=num_resamples, seed=seed)
    draws = resample([resampler.adapt(evaluate)], resampler)[0]
    return percentile_interval(value, draws, level=level, low=chosen.low, high=chosen.high)


def bootstrap_statistic(
    statistic: Callable[..., float],
    *arrays: Array,
    groups: NDArray[np.integer[Any]] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return any statistic of row-aligned arrays with its bootstrap interval: the general, slow way.

    Args:
        statistic: Called with the resampled arrays; it may return NaN where it is undefined.
        arrays: Arrays with the same first dimension.
        groups: Group of each row, or None.
        num_resamples: Resamples; the same ones that :class:`Resampler` makes for the metrics.
        seed: Seed of the resamples.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: If the arrays differ in length.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(f"`arrays` must have the same number of rows; got {sorted(lengths)}.")
    rows = np.arange(lengths.pop())
    resampler = Resampler(len(rows), groups=groups, num_resamples=num_resamples, seed=seed)
    draws = [
        statistic(*(array[chosen] for array in arrays))
        for block in resampler.blocks()
        # Rows as often as they were drawn: any function of arrays works, at the price of copies.
        for chosen in (np.repeat(rows, counts.astype(np.int64)) for counts in resampler.row_counts(block))
    ]
    return percentile_interval(float(statistic(*arrays)), np.array(draws, dtype=np.float64), level=level)

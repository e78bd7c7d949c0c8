"""How certain transferability scores are: half-samples of the rows, the same for all sources, and where each source stands in
them.

Bootstrap samples hold rows twice, which scores that look at neighbours or at the number of rows take for knowledge. Here every draw
takes half of the rows once: the differences among such halves vary as much as the score of all rows does. Rows are dealt into
bundles first (whole groups stay together), and half of the bundles are drawn, so that scores made of sums read each row once for
all draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.interfaces.scorer import ScoredRows, Scorer
from graftwork.math.feature_moments import FeatureMoments

__all__ = ["HalfSamples", "StableScore", "Standing", "main_directions", "narrowed", "stable_score", "standings"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_BUNDLES = (8, 20)
_BYTES = 400e6
"""Memory that statistics of all bundles may take: wide features get fewer bundles."""
_BLOCK = 4096
_NARROW = 256
"""Widest features that replicates are taken of."""


class HalfSamples:
    """Bundles of rows, and which half of them each draw takes; equal arguments give equal draws.

    Args:
        num_rows: Rows to divide, at least 2.
        groups: Group of each row ``[num_rows]``; whole groups are dealt. None deals rows.
        draws: Number of half-samples, at least 2.
        seed: Deals and draws.

    Raises:
        DataError: If there are fewer than two rows or groups.
    """

    def __init__(self, num_rows: int, *, groups: Array | None = None, draws: int = 30, seed: int = 0) -> None:
        units = np.arange(num_rows) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
        count = int(units.max()) + 1 if num_rows else 0
        if count < 2:
            raise DataError(f"Intervals need at least two {'rows' if groups is None else 'groups'}; got {count}.")
        self.draws, self.seed = draws, seed
        self._unit, self._units = units, count

    def bundles(self, width: int) -> list[NDArray[np.int64]]:
        """Return the rows of each bundle, ascending; wider features get fewer bundles, at least 8."""
        number = min(self._units, int(np.clip(_BYTES / (8.0 * width**2), *_BUNDLES)))
        dealt = np.random.default_rng([self.seed, 1]).permutation(self._units) % number
        bundle = dealt[self._unit]
        return [np.flatnonzero(bundle == index) for index in range(number)]

    def halves(self, number: int) -> list[NDArray[np.int64]]:
        """Return which of ``number`` bundles each draw takes."""
        random = np.random.default_rng([self.seed, 2])
        return [np.sort(random.permutation(number)[: max(1, number // 2)]) for _ in range(self.draws)]


@dataclass(frozen=True, slots=True)
class StableScore:
    """A score of all rows, and what it might have been on others."""

    value: float
    replicates: Floats
    """Scores of the half-samples, moved so that their mean is :attr:`value`, ``[draws]``; NaN where a half could not be judged."""

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound, 95 %; NaN if fewer than half of the draws could be judged."""
        known = self.replicates[~np.isnan(self.replicates)]
        if 2 * len(known) < len(self.replicates):
            return float("nan"), float("nan")
        low, high = np.quantile(known, [0.025, 0.975])
        return float(min(low, self.value)), float(max(high, self.value))


def main_directions(features: Array) -> NDArray[np.float32] | None:
    """Return the first 256 principal directions of features ``[N, D]``, float32 ``[D, 256]``; None of features that are no wider.

    Scores cost the cube of the width. How a score varies among half-samples is nearly the same on the directions that hold most of
    the features; the score itself is always taken of all of them.
    """
    if features.shape[1] <= _NARROW:
        return None
    moments = FeatureMoments()
    for start in range(0, len(features), _BLOCK):
        moments.update(np.asarray(features[start : start + _BLOCK], dtype=np.float64))
    # Directions through zero, not through the mean: scores without an intercept keep their meaning.
    return np.asarray(np.linalg.eigh(moments.gram)[1][:, -_NARROW:], dtype=np.float32)


def narrowed(features: Array) -> Array:
    """Return features for the replicates: as they are up to 256 columns, else along their :func:`main_directions`, in memory."""
    basis = main_directions(features)
    if basis is None:
        return features
    return np.concatenate([features[start : start + _BLOCK] @ basis for start in range(0, len(features), _BLOCK)])


def stable_score(
    make: Callable[[], Scorer], seen: Array, target: Array, samples: HalfSamples, *, replicated: Array | None = None
) -> StableScore:
    """Return the score of all rows with its replicates.

    Args:
        make: Returns a new scorer.
        seen: What it reads, ``[N, D]``; may be mapped from a file.
        target: See :class:`~graftwork.interfaces.scorer.ScoredRows`.
        samples: The half-samples, the same object for all sources that are compared.
        replicated: What replicates are taken of in place of ``seen``, ``[N, d]`` (:func:`narrowed`).

    Raises:
        DataError: If the rows cannot be judged.
    """
    value = _run(make(), seen, target, None)
    seen = seen if replicated is None else replicated
    bundles = samples.bundles(seen.shape[1])
    halves = samples.halves(len(bundles))
    if make().passes > 1:
        found = [_tried(lambda half=half: _run(make(), seen, target, _rows_of(bundles, half))) for half in halves]  # type: ignore[misc]
        return StableScore(value, _centred(found, value, make().bounds))
    parts = []
    for rows in bundles:
        part = make()
        for block in _blocks(part, seen, target, rows):
            part.update(block)
        parts.append(part)

    def merged(chosen: Sequence[int]) -> float:
        whole = make()
        for index in chosen:
            whole.merge(parts[index])
        return whole.finish()

    return StableScore(value, _centred([_tried(lambda half=half: merged(half)) for half in halves], value, make().bounds))  # type: ignore[misc]


def _rows_of(bundles: Sequence[NDArray[np.int64]], half: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.sort(np.concatenate([bundles[index] for index in half]))


def _blocks(scorer: Scorer, seen: Array, target: Array, rows: NDArray[np.int64] | None) -> Iterator[ScoredRows]:
    """Yield blocks of some rows, or of all."""
    count = len(target) if rows is None else len(rows)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # All rows are read as they lie: picked one by one they would be copied once more.
        part: Any = slice(start, stop) if rows is None else rows[start:stop]
        yield ScoredRows(
            target=target[part],
            features=seen[part] if scorer.reads == "features" else None,
            probabilities=seen[part] if scorer.reads == "probabilities" else None,
            rows=np.arange(start, stop) if rows is None else part,
        )


def _run(scorer: Scorer, seen: Array, target: Array, rows: NDArray[np.int64] | None) -> float:
    # Made anew for each pass: blocks of all rows together may not fit into memory.
    return scorer.run(lambda: _blocks(scorer, seen, target, rows))


def _tried(score: Callable[[], float]) -> float:
    try:
        return score()
    except DataError:  # a half of few rows may hold one class only
        return float("nan")


def _centred(found: Sequence[float], value: float, bounds: tuple[float, float]) -> Floats:
    values = np.array(found, dtype=np.float64)
    known = ~np.isnan(values)
    # An accuracy that is moved beyond 1 stays at 1.
    return np.clip(values - values[known].mean() + value, *bounds) if known.any() else values


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a source stands among all, over all columns (a task and a score each)."""

    mean_rank: float
    """1 is first in every column."""
    rank_low: float
    rank_high: float
    """Range of the mean rank that 95 % of the draws stay in."""
    first_share: float
    """Share of the draws in which no other source has a lower mean rank; ties share."""


def standings(values: Floats, replicates: Floats) -> list[Standing]:
    """Return the standing of each source.

    Args:
        values: Scores, ``[sources, columns]``, higher is better, none missing.
        replicates: Their replicates, ``[draws, sources, columns]``; a draw with a missing number is left out.
    """
    from scipy.stats import rankdata

    mean = rankdata(-values, axis=0).mean(axis=1)
    whole = replicates[~np.isnan(replicates).any(axis=(1, 2))]
    drawn = rankdata(-whole, axis=1).mean(axis=2) if len(whole) else mean[None]
    best = np.isclose(drawn, drawn.min(axis=1, keepdims=True))
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [
        Standing(float(rank), float(min(a, rank)), float(max(b, rank)), float(share))
        for rank, a, b, share in zip(mean, low, high, first, strict=True)
    ]

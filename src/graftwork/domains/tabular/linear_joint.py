"""One linear map for all targets: few directions of the features that serve every target, and for each target a small model on
them, which may add weights of its own.

The directions are those of reduced-rank ridge regression (Mukherjee and Zhu, "Reduced rank ridge regression and its kernel
extensions", 2011): ridge regression of every target on the rows that have it, then the directions in which the fitted values of
all targets vary most. How many there are, and whether targets add weights of their own, is chosen on held-out training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.linear import LinearLearner, spaced
from graftwork.domains.tabular.linear_fits import INVERSE_PENALTIES, RidgePath, choose_ridge, logistic_losses
from graftwork.domains.tabular.one_shot import State

__all__ = ["JointLinearLearner"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
RANKS = (1, 2, 3, 5, 8, 13, 21, 34)
OWN_WEIGHT = 3.0
"""Where targets have weights of their own, shared directions have so many standard deviations: they are shrunk nine times less."""
_CHOOSING_ROWS = 5000


@dataclass(frozen=True, slots=True, eq=False)
class _Targets:
    """All targets of some rows side by side: standardised numbers and columns of 0 and 1 of variance 1 a block; NaN where a label
    is missing."""

    values: Floats
    penalties: Floats
    """Penalty of ridge regression, ``[T]``."""
    together: Sequence[Sequence[int]]
    """Columns whose labels stand on the same rows."""

    def map(self, x: Floats, rows: Rows) -> tuple[Floats, Floats]:
        """Return weights ``[D, T]`` and intercepts of ridge regression, each target on those of the rows that have it."""
        weights, intercepts = np.zeros((x.shape[1], self.values.shape[1])), np.zeros(self.values.shape[1])
        for columns in self.together:
            known = rows[~np.isnan(self.values[rows, columns[0]])]
            if len(known) > 1:
                y = self.values[np.ix_(known, columns)]
                found = RidgePath.of(x[known]).weights(x[known], y, self.penalties[list(columns)])
                weights[:, columns], intercepts[list(columns)] = found
        return weights, intercepts


class JointLinearLearner(LinearLearner):
    """Linear models of all targets on few shared directions.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "shared linear model"
    slug = "linear-joint"

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Find the directions, then fit a model for each block on them."""
        rows, every, _ = self._prepared(self.blocks)
        choosing = rows[spaced(len(rows), _CHOOSING_ROWS)]
        part = every[spaced(len(rows), _CHOOSING_ROWS)]
        options = []
        for columns in self._designs():
            x = part[:, columns]
            targets, error = self._targets(choosing, x)
            options.append((error, columns, targets))
        _, columns, targets = min(options, key=lambda option: option[0])
        rank, has_own = self._choose(choosing, part[:, columns], targets)
        x = every[:, columns]
        directions = _directions(x, self._all_targets(rows, targets).map(x, np.arange(len(rows)))[0], rank)
        features = _features(x, directions, has_own)
        weights, intercepts = np.zeros((self._design.width, sum(block.width for block in self.blocks))), []
        for block, place in zip(self.blocks, self._places(), strict=True):
            known = np.flatnonzero(block.known[rows])
            found, level = self._head(block, rows[known], features[known])
            weights[np.ix_(columns, place)] = directions @ found[:rank] * (OWN_WEIGHT if has_own else 1.0)
            if has_own:
                weights[np.ix_(columns, place)] += found[rank:]
            intercepts.append(level)
        facts = {"directions": rank, "weights of their own": has_own, "numbers": self._words(columns)}
        return {"weights": weights, "intercepts": np.concatenate(intercepts)}, facts

    def _all_targets(self, rows: Rows, like: _Targets) -> _Targets:
        parts = []
        for block in self.blocks:
            found = block.targets(rows)
            shares = block.shares(self.train_rows)
            variance = 1.0 if block.is_number else float((shares * (1.0 - shares)).sum())
            parts.append((found - (0.0 if block.is_number else shares)) / np.sqrt(max(variance, 1e-6)))
        return _Targets(np.concatenate(parts, axis=1), like.penalties, like.together)

    def _targets(self, rows: Rows, x: Floats) -> tuple[_Targets, float]:
        """Return the targets with their penalties, and the held-out error of separate models."""
        places = self._places()
        together = [[column for index in members for column in places[index].tolist()] for members in self._together()]
        empty = _Targets(np.zeros((0, 0)), np.full(sum(map(len, places)), 0.1), together)
        values = self._all_targets(rows, empty).values
        penalties, error = empty.penalties, 0.0
        for columns in together:
            known = np.flatnonzero(~np.isnan(values[:, columns[0]]))
            if len(known) > 1:
                folds = list(inner_folds(self.context.suite, rows[known], Seeds(self.context.seed).numpy("folds")))
                penalties[columns], errors = choose_ridge(x[known], values[np.ix_(known, columns)], folds)
                error += float(errors.sum())
        return _Targets(values, penalties, together), error

    def _choose(self, rows: Rows, x: Floats, targets: _Targets) -> tuple[int, bool]:
        """Return how many directions there are, and whether targets add weights of their own."""
        most = min(targets.values.shape[1], x.shape[1])
        ranks = [rank for rank in RANKS if rank < most] + ([most] if most <= RANKS[-1] else [])
        errors: dict[tuple[int, bool], float] = {(rank, own): 0.0 for rank in ranks for own in (False, True)}
        for fit, held in inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds of all")):
            shared = targets.map(x, fit)[0]
            for rank, has_own in errors:
                features = _features(x, _directions(x[fit], shared, rank), has_own)
                # With as strong penalties as alone: what is shared has been shrunk already, what is own should be.
                weights, intercepts = targets.map(features, fit)
                gap = features[held] @ weights + intercepts - targets.values[held]
                # Targets with few labels count as much as others.
                known = ~np.isnan(gap)
                means = np.square(np.where(known, gap, 0.0)).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
                errors[rank, has_own] += float(means.sum())
        return min(errors, key=lambda key: errors[key])

    def _head(self, block: Any, rows: Rows, features: Floats) -> tuple[Floats, Floats]:
        folds = list(inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds")))
        if block.is_number:
            y = block.targets(rows)
            return RidgePath.of(features).weights(features, y, choose_ridge(features, y, folds)[0])
        losses = logistic_losses(features, block.classes(rows), block.num_classes, folds)
        inverse = INVERSE_PENALTIES[int(losses.argmin())] if losses.any() else 1.0
        return self._logistic(block, rows, features, inverse)


def _directions(x: Floats, weights: Floats, rank: int) -> Floats:
    """Return ``[D, rank]``: directions in which fitted values vary most, scaled to a variance of 1 on the rows of ``x``."""
    fitted = (x - x.mean(axis=0)) @ weights
    _, vectors = np.linalg.eigh(fitted.T @ fitted)
    found = weights @ vectors[:, ::-1][:, :rank]
    deviation = (x @ found).std(axis=0)
    return found / np.where(deviation > 1e-9, deviation, 1.0)


def _features(x: Floats, directions: Floats, has_own: bool) -> Floats:
    shared = x @ directions
    return np.concatenate([OWN_WEIGHT * shared, x], axis=1) if has_own else shared

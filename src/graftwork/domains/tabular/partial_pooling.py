"""Partial pooling as a plan: for many targets with few rows each, a linear map that all of them share and a small part of its own for
each, as much as the rows show (:mod:`~graftwork.domains.tabular.pooled_fits`).

Targets of one form are pooled: all numbers, all questions with two answers, and all questions with the same several answers. What they
have of their own (intercepts, slopes, slopes with a learned covariance), whether numbers are taken in units that all share or each in
its own, and whether features are bent, is chosen on held-out training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.linear import LinearLearner, spaced
from graftwork.domains.tabular.one_shot import State
from graftwork.domains.tabular.pooled_features import PooledFeatures
from graftwork.domains.tabular.pooled_fits import (
    STRUCTURES,
    Labels,
    Moments,
    Structure,
    fit_classes,
    fit_numbers,
    probabilities,
)

__all__ = ["PartialPoolingLearner"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
FOLDS = 3
STEPS, CHOOSING_STEPS = 60, 15
_MOST_WORK = 6e6
"""Units times the third power of their coefficients: a step takes some hundredths of a second."""
_MOST_DIRECTIONS = 64
_CLASS_WORK = 3e8
"""Rows times units times the squares of coefficients in a step for classes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """Settings of a pool."""

    columns: Rows
    """Columns of the design."""
    most: int
    """Most coefficients of a target."""
    is_common: bool
    structure: Structure


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Targets that share a map."""

    indices: Sequence[int]
    blocks: Sequence[LabelBlock]
    labels: Sequence[Labels]
    """Of each block, numbers in its own units."""

    @property
    def is_number(self) -> bool:
        return self.blocks[0].is_number

    @property
    def families(self) -> Rows:
        return np.tile(np.arange(self.blocks[0].width), len(self.blocks))

    def common(self) -> tuple[Floats, Floats]:
        """Return factors and offsets ``[U]`` that turn standardised numbers of each block into units that all share."""
        centers, scales = (np.array([getattr(block, name) for block in self.blocks]) for name in ("center", "scale"))
        middle = centers.mean()
        whole = float(np.sqrt(np.mean(np.square(scales) + np.square(centers - middle)))) or 1.0
        return scales / whole, (centers - middle) / whole


class PartialPoolingLearner(LinearLearner):
    """Linear models of all targets, each drawn towards the one that they share.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "partial pooling"
    slug = "partial-pooling"

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Choose the settings of each pool and fit its models."""
        rows, x, _ = self._prepared(self.blocks)
        weights = np.zeros((self._design.width, sum(block.width for block in self.blocks)))
        intercepts, facts, places = np.zeros(weights.shape[1]), [], self._places()
        for pool in self._pools(rows):
            option = self._chosen(pool, rows, x)
            slopes, levels = _fit(pool, pool.labels, option, x, steps=STEPS)
            targets = np.concatenate([places[index] for index in pool.indices])
            weights[np.ix_(option.columns, targets)], intercepts[targets] = slopes, levels
            names = {block.task.name: None for block in pool.blocks}
            facts.append(
                {
                    "targets": list(names),
                    "own part": option.structure,
                    "units": "shared" if option.is_common else "own",
                    "numbers": self._words(option.columns),
                }
            )
        return {"weights": weights, "intercepts": intercepts}, {"pools": facts}

    def _pools(self, rows: Rows) -> list[_Pool]:
        members: dict[Any, list[int]] = {}
        for index, block in enumerate(self.blocks):
            answers = tuple(block.task.classes) if block.width > 1 else ()
            members.setdefault((block.form, block.width, answers), []).append(index)
        found = []
        for indices in members.values():
            blocks = [self.blocks[index] for index in indices]
            found.append(_Pool(indices, blocks, [self._labels(block, rows, len(blocks)) for block in blocks]))
        return found

    def _labels(self, block: LabelBlock, rows: Rows, num_blocks: int) -> Labels:
        places = np.flatnonzero(block.known[rows])
        if not block.is_number:
            width = _most_coefficients(num_blocks * block.width)
            most = int(_CLASS_WORK / (num_blocks * block.width * width**2))
            places = places[spaced(len(places), max(most, 200))]
        return Labels(places, block.targets(rows[places]))

    def _chosen(self, pool: _Pool, rows: Rows, x: Floats) -> _Option:
        """Return the settings that predict held-out rows best: first features and units, then what targets have of their own."""
        most = _most_coefficients(len(pool.families))
        units = [False, True] if pool.is_number and len(pool.blocks) > 1 else [False]
        folds = list(inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds"), folds=FOLDS, every=True))
        options = [_Option(columns, most, is_common, "slopes") for columns in self._designs() for is_common in units]
        losses = [_loss(pool, option, x, folds) for option in options]
        best = int(np.argmin(losses))
        others = [replace(options[best], structure=structure) for structure in STRUCTURES if structure != "slopes"]
        options, losses = [options[best], *others], [losses[best], *(_loss(pool, option, x, folds) for option in others)]
        return options[int(np.argmin(losses))]


def _most_coefficients(num_units: int) -> int:
    return int(np.clip((_MOST_WORK / num_units) ** (1 / 3), 8, _MOST_DIRECTIONS))


def _loss(pool: _Pool, option: _Option, x: Floats, folds: Sequence[tuple[Rows, Rows]]) -> float:
    """Return the loss of held-out rows, the mean over targets: squared errors in units of each, or log losses."""
    sums, counts = np.zeros(len(pool.blocks)), np.zeros(len(pool.blocks))
    for fit, held in folds:
        mask = np.zeros(len(x), dtype=np.bool_)
        mask[fit] = True
        fitted = [labels.at(mask) for labels in pool.labels]
        mask[:] = False
        mask[held] = True
        slopes, levels = _fit(pool, fitted, option, x, steps=CHOOSING_STEPS)
        start = 0
        for index, labels in enumerate(pool.labels):
            kept = labels.at(mask)
            columns = slice(start, start + labels.values.shape[1])
            start = columns.stop
            scores = x[np.ix_(kept.places, option.columns)] @ slopes[:, columns] + levels[columns]
            sums[index] += _losses(pool, scores, kept.values).sum()
            counts[index] += len(kept.places)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if counts.any() else 0.0


def _losses(pool: _Pool, scores: Floats, values: Floats) -> Floats:
    if pool.is_number:
        return np.square(scores - values)
    shares = np.clip(probabilities(scores), 1e-12, 1.0 - 1e-12)
    if shares.shape[1] == 1:
        return -np.log(np.where(values > 0, shares, 1.0 - shares))
    return -np.log(shares) * values


def _fit(pool: _Pool, labels: Sequence[Labels], option: _Option, x: Floats, *, steps: int) -> tuple[Floats, Floats]:
    """Return weights of the columns ``[D, U]`` and intercepts ``[U]``, of numbers in the units of each target."""
    part = x[:, option.columns]
    features = PooledFeatures.of(part, labels, pool.blocks[0].width, option.most)
    seen = features.matrix(part)
    if not pool.is_number:
        found = fit_classes(seen, labels, pool.families, option.structure, steps=steps)
        return features.weights(found.coefficients(pool.families))
    # In units of its own each number is taken from its own mean, which held-out rows must have no part in.
    means = np.array([one.values.mean() if len(one.values) else 0.0 for one in labels])
    factors, offsets = pool.common() if option.is_common else (np.ones(len(labels)), -means)
    moved = [
        replace(one, values=one.values * factor + offset) for one, factor, offset in zip(labels, factors, offsets, strict=True)
    ]
    found = fit_numbers(Moments.of(seen, moved), pool.families, option.structure, steps=steps)
    slopes, levels = features.weights(found.coefficients(pool.families))
    return slopes / factors, (levels - offsets) / factors

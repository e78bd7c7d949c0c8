"""What linear models on a frozen backbone's features say of the targets, as a few columns for trees.

Trees split badly on a thousand features of a network, each of which says a little; one linear model on all of them says most of it
in one number. Training rows get the scores of models that did not learn from them (Wolpert, "Stacked generalization", Neural
Networks 1992), so that trees trust the scores as much as they are worth on new rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.text.linear_fits import fit_logistic, fit_ridge

__all__ = ["FeatureScores"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScores:
    """Linear models ``scores = features @ weights + intercepts``, one column for each column of the labels."""

    weights: NDArray[np.float32]
    """``[width, K]``, of features as the backbone gives them."""
    intercepts: NDArray[np.float32]
    """``[K]``."""

    @classmethod
    def learn(
        cls, suite: Suite, features: NDArray[np.float32], blocks: Sequence[LabelBlock], seed: int
    ) -> tuple[Self, NDArray[np.float32]]:
        """Fit on the training rows.

        Args:
            suite: Its splits and groups.
            features: Of all its rows, ``[N, width]``.
            blocks: What is predicted; ``K`` columns in all.
            seed: Deals training rows to folds.

        Returns:
            The models, and the scores of all rows, ``[N, K]``: of a training row from models that did not learn from it.
        """
        rows = np.asarray(suite.splits["train"], dtype=np.int64)
        x = np.asarray(features[rows], dtype=np.float64)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        # Of length about 1 like texts, whose strengths are tried.
        scale = np.where(spread > 1e-6, spread, np.inf) * np.sqrt(x.shape[1])
        x = (x - mean) / scale
        folds = list(inner_folds(suite, rows, np.random.default_rng(seed), folds=_FOLDS, every=True))
        weights, intercepts, held_out = [], [], []
        for block in blocks:
            groups = None if suite.groups is None else suite.groups[rows]
            slopes, offset, strength = _fit(x, block, rows, np.arange(len(rows)), groups, None)
            scores = x @ slopes + offset
            for fit, held in folds:
                # A fold without labels (or with one class) to fit on keeps what all rows say.
                if _can_fit(block, rows[fit]):
                    own, own_offset, _ = _fit(x, block, rows, fit, groups, strength)
                    scores[held] = x[held] @ own + own_offset
            weights.append(slopes)
            intercepts.append(offset)
            held_out.append(scores)
        raw = np.concatenate(weights, axis=1) / scale[:, None]
        found = cls(raw.astype(np.float32), (np.concatenate(intercepts) - mean @ raw).astype(np.float32))
        answers = found.of(features)
        answers[rows] = np.concatenate(held_out, axis=1)
        return found, answers

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of rows, ``[n, K]``."""
        return np.asarray(features, dtype=np.float32) @ self.weights + self.intercepts

    def state(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Return what is stored, by name."""
        return {f"{prefix}weights": self.weights, f"{prefix}intercepts": self.intercepts}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], prefix: str) -> Self:
        """Restore from :meth:`state`."""
        return cls(np.asarray(state[f"{prefix}weights"]), np.asarray(state[f"{prefix}intercepts"]))


def _can_fit(block: LabelBlock, rows: Rows) -> bool:
    known = block.labelled(rows)
    return len(known) > 1 and (block.is_number or len(np.unique(block.classes(known))) > 1)


def _fit(
    x: Floats, block: LabelBlock, rows: Rows, places: Rows, groups: NDArray[np.int64] | None, strength: float | None
) -> tuple[Floats, Floats, float]:
    """Return weights ``[width, k]``, intercepts ``[k]`` and the strength of a block's model of some training rows."""
    places = places[block.known[rows[places]]]
    own = None if groups is None else groups[places]
    if block.is_number:
        slopes, intercept, found = fit_ridge(x[places], block.targets(rows[places])[:, 0], own, strength=strength)
        return slopes[:, None], np.array([intercept]), found
    return fit_logistic(x[places], block.classes(rows[places]), block.num_classes, own, inverse=strength)

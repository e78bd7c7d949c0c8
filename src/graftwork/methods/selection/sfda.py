r"""SFDA: how sure a regularised Fisher discriminant is of the labels, once unsure rows were moved towards other classes.

Paper: Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher Space", ECCV 2022,
https://arxiv.org/abs/2207.03036. Symbols: :math:`S_w` covariance within classes, mean over rows; :math:`\lambda =
\max(\exp(-5 \, \mathrm{eig}_{\max}(S_w)), 10^{-10})` its shrinkage. The discriminant gives each row the softmax of
:math:`m_c^T S^{-1} x - \frac12 m_c^T S^{-1} m_c + \log \pi_c`, ``S`` being :math:`(1 - \lambda) S_w + \lambda \, \mathrm{tr}(S_w) / D
\, I`. Rows are then mixed with the mean of the other classes' means by how unsure they are of their label (probabilities softened by a
second softmax, as in the authors' code), a second discriminant of the same shrinkage is fitted on them, and the score is its mean
probability of the labels.

The largest eigenvalue is exact here; the authors' code takes three steps of a power iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.math.feature_moments import ClassSums, FeatureMoments
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["SelfChallengingFisher"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Discriminant:
    """A fitted discriminant over the classes that have rows."""

    weights: Floats
    """``[C, D]``."""
    biases: Floats
    places: Labels
    """Number among the present classes of each class, ``[all classes]``."""
    shrinkage: float

    def probabilities(self, rows: Floats) -> Floats:
        """Return ``[n, C]``."""
        return _softmax(rows @ self.weights.T + self.biases)


class SelfChallengingFisher(CheckedScorer):
    """Reads class indices; in [0, 1]. Three passes: first discriminant, mixed rows and second one, its answers. The score depends on
    the scale of the features, through the shrinkage."""

    passes = 3
    bounds = (0.0, 1.0)

    def __init__(self) -> None:
        self._moments, self._classes = FeatureMoments(), ClassSums()
        self._first: _Discriminant | None = None
        self._second: _Discriminant | None = None
        self._others: Floats = np.zeros((0, 0))
        self._total, self._count = 0.0, 0

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        labels = np.asarray(target, dtype=np.int64)
        if self._first is None:
            self._moments.update(rows)
            self._classes.update(rows, labels)
            return
        mixed = self._mixed(rows, labels)
        if self._second is None:
            self._moments.update(mixed)
            self._classes.update(mixed, labels)
            return
        answers = self._second.probabilities(mixed)
        self._total += float(answers[np.arange(len(rows)), self._second.places[labels]].sum())
        self._count += len(rows)

    def _mixed(self, rows: Floats, labels: Labels) -> Floats:
        """Return rows moved towards the mean of the other classes, the more the less sure the first discriminant is."""
        assert self._first is not None
        own = self._first.places[labels]
        sure = _softmax(self._first.probabilities(rows))[np.arange(len(rows)), own, None]
        return np.asarray(sure * rows + (1.0 - sure) * self._others[own])

    def finish_pass(self) -> None:
        """Fit the discriminant of the pass; with fewer than two classes there is none, and :meth:`finish` says so."""
        present = int(self._classes.present.sum())
        if present < 2:
            return
        if self._first is None:
            self._first = _fit(self._moments, self._classes)
            means = self._classes.means()
            self._others = (means.sum(axis=0) - means) / (present - 1)
        else:
            self._second = _fit(self._moments, self._classes, self._first.shrinkage)
            return
        self._moments, self._classes = FeatureMoments(), ClassSums()

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._classes.counts)
        return self._total / self._count


def _fit(moments: FeatureMoments, classes: ClassSums, shrinkage: float | None = None) -> _Discriminant:
    means, counts = classes.means(), classes.counts[classes.present]
    within = (moments.gram - (means * counts[:, None]).T @ means) / moments.count
    values, vectors = np.linalg.eigh(within)
    # Rounding leaves variances a little below 0.
    values = np.maximum(values, 0.0)
    if shrinkage is None:
        shrinkage = max(float(np.exp(-5.0 * values[-1])), 1e-10)
    shrunken = (1.0 - shrinkage) * values + shrinkage * float(values.mean())
    # Directions with no more variance than rounding leaves would count without bound.
    shrunken = np.maximum(shrunken, max(1e-12 * float(values[-1]), moments.noise(), np.finfo(np.float64).tiny))
    # Taken from the mean of all rows: far from zero the differences between classes would drown in rounding.
    centred = means - moments.mean
    weights = (centred @ vectors / shrunken) @ vectors.T
    places = np.cumsum(classes.present) - 1
    biases = np.log(counts / counts.sum()) - (weights * (0.5 * centred + moments.mean)).sum(axis=1)
    return _Discriminant(weights, biases, places, shrinkage)


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

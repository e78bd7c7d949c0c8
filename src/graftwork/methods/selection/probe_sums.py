"""A linear probe of any number of rows, fitted in closed form from sums that stream past.

Classes are told by a linear discriminant whose covariance within classes is shrunken towards a multiple of the identity, on
standardised features: a Gram matrix and the sums of the classes are all that it needs, and a second pass counts what it gets right.
Values are fitted by ridge regression, whose errors on rows held out follow from the sums of these rows as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.math.feature_moments import ClassSums, FeatureMoments, ValueSums

__all__ = ["PENALTIES", "ProbeSums", "probe_parts"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Of the squared weights on standardised features, the strongest first."""
_SHRINKAGES = (0.5, 0.1, 0.01, 0.001)
"""Of the covariance within classes, the strongest first."""
_FIFTH = 2**64 // 5
_HELD, _CHOOSING, _FITTING = range(3)


def probe_parts(keys: NDArray[np.uint64]) -> Labels:
    """Return the part of each row, by its hash: 0 is held out, 1 chooses the penalty (a fifth of the rows each), 2 is fitted on."""
    return (keys >= np.uint64(_FIFTH)).astype(np.int64) + (keys >= np.uint64(2 * _FIFTH))


class ProbeSums:
    """Sums over the parts of the rows. :meth:`add` every block, then :meth:`fit`, then :meth:`judge` every block if the target has
    classes, then :meth:`score`."""

    def __init__(self) -> None:
        self._pivot: Floats | None = None
        self._middle: Floats = np.zeros(0)
        self._moments = [FeatureMoments() for _ in range(3)]
        self._values = [ValueSums() for _ in range(3)]
        self._classes = ClassSums()
        self._fits: list[tuple[Floats, Floats]] = []
        self._right = np.zeros((2, len(_SHRINKAGES)))
        self._judged = np.zeros(2)

    def add(self, rows: Floats, target: NDArray[np.generic], keys: NDArray[np.uint64]) -> None:
        """Add rows ``[n, D]``, their classes int64 ``[n]`` or values float64 ``[n, K]``, and their hashes."""
        is_classes = np.issubdtype(target.dtype, np.integer)
        values = np.zeros((len(rows), 0)) if is_classes else np.asarray(target, dtype=np.float64)
        if self._pivot is None:
            # Sums of squares far from zero would drown what varies in rounding.
            self._pivot, self._middle = rows[0].copy(), values[0].copy()
        parts = probe_parts(keys)
        for part in (_FITTING,) if is_classes else (_HELD, _CHOOSING, _FITTING):
            chosen = parts == part
            if not chosen.any():
                continue
            block = rows[chosen] - self._pivot
            self._moments[part].update(block)
            if is_classes:
                self._classes.update(block, np.asarray(target[chosen], dtype=np.int64))
            else:
                self._values[part].update(block, values[chosen] - self._middle)

    def fit(self) -> None:
        """Fit a model for each strength.

        Raises:
            DataError: If no row is left to fit on.
        """
        moments = self._moments[_FITTING]
        if not moments.count:
            raise DataError("A linear probe has no rows to be fitted on.")
        covariance = moments.covariance()
        spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        scale = np.where(spread > 1e-6 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf)
        self._fits = self._discriminants(covariance, scale) if len(self._classes.counts) else self._ridges(covariance, scale)

    def _discriminants(self, covariance: Floats, scale: Floats) -> list[tuple[Floats, Floats]]:
        present, mean = self._classes.present, self._moments[_FITTING].mean
        shares = self._classes.counts[present] / self._classes.counts.sum()
        centred = self._classes.means() - mean
        within = (covariance - (centred * shares[:, None]).T @ centred) / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(within)
        values = np.maximum(values, 0.0)  # rounding leaves some a little below
        level, along, found = float(values.mean()), (centred / scale) @ vectors, []
        for amount in _SHRINKAGES:
            shrunken = np.maximum((1.0 - amount) * values + amount * level, np.finfo(np.float64).tiny)
            weights = np.zeros((len(present), len(mean)))
            # A class without a row to fit on is never answered.
            biases = np.full(len(present), -np.inf)
            weights[present] = ((along / shrunken) @ vectors.T) / scale
            biases[present] = np.log(shares) - (weights[present] * (0.5 * centred + mean)).sum(axis=1)
            found.append((weights, biases))
        return found

    def _ridges(self, covariance: Floats, scale: Floats) -> list[tuple[Floats, Floats]]:
        moments, values = self._moments[_FITTING], self._values[_FITTING]
        middle = values.total / moments.count
        cross = (values.cross / moments.count - np.outer(middle, moments.mean)) / scale
        sizes, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        along, sizes = cross @ vectors, np.maximum(sizes, 0.0)
        weights = [((along / (sizes + penalty)) @ vectors.T) / scale for penalty in PENALTIES]
        return [(weight, middle - weight @ moments.mean) for weight in weights]

    def judge(self, rows: Floats, labels: Labels, keys: NDArray[np.uint64]) -> None:
        """Count what each discriminant says right of rows that it was not fitted on."""
        assert self._pivot is not None, "add comes first"
        parts = probe_parts(keys)
        for part in (_HELD, _CHOOSING):
            chosen = parts == part
            block, own = rows[chosen] - self._pivot, labels[chosen]
            self._judged[part] += len(block)
            for number, (weights, biases) in enumerate(self._fits):
                self._right[part, number] += float(((block @ weights.T + biases).argmax(axis=1) == own).sum())

    def score(self) -> float:
        """Return accuracy or mean R squared of the rows held out, by the model that is best on those that choose.

        Raises:
            DataError: If the values held out do not differ.
        """
        if len(self._classes.counts):
            best = int(self._right[_CHOOSING].argmax())
            return float(self._right[_HELD, best] / max(1.0, self._judged[_HELD]))
        count = self._moments[_HELD].count
        held = self._values[_HELD]
        variance = held.squares / max(1, count) - (held.total / max(1, count)) ** 2 if count else np.zeros(0)
        varied = variance > 1e-14 * np.maximum(held.squares / max(1, count), 1e-300)
        if not varied.any():
            raise DataError("LinearProbe needs values that differ among the rows held out.")
        fitting = self._values[_FITTING]
        unit = fitting.squares / self._moments[_FITTING].count - (fitting.total / self._moments[_FITTING].count) ** 2
        wrong = [self._errors(_CHOOSING, *fit) / unit.clip(1e-30) for fit in self._fits]
        best = int(np.argmin([float(error[varied].mean()) for error in wrong]))
        return float((1.0 - self._errors(_HELD, *self._fits[best])[varied] / variance[varied]).mean())

    def _errors(self, part: int, weight: Floats, bias: Floats) -> Floats:
        """Return the mean squared error of each value over the rows of a part, ``[K]``."""
        moments, values = self._moments[part], self._values[part]
        count = max(1, moments.count)
        if not moments.count:
            return np.full(len(bias), np.inf)
        square = np.einsum("kd,kd->k", weight @ moments.gram, weight) + 2.0 * bias * (weight @ moments.total) + count * bias**2
        crossed = np.einsum("kd,kd->k", weight, values.cross) + bias * values.total
        return np.maximum((square - 2.0 * crossed + values.squares) / count, 0.0)

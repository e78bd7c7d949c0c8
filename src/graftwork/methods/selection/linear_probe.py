"""Linear probe: how well a linear model on the frozen features predicts rows that it was not fitted on."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.math.linear_fits import fit_multinomial, fit_ridge
from graftwork.math.row_sample import RowSample
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["LinearProbe"]

Floats = NDArray[np.float64]
_PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Half of this times the squared weights is added to the mean loss on standardised features, the strongest first."""


class LinearProbe(CheckedScorer):
    """Reads class indices (multinomial logistic regression; score: accuracy in [0, 1]) or values (ridge regression; score: mean R
    squared, at most 1).

    A fifth of the rows is held out; the penalty is chosen on another fifth.

    Args:
        max_rows: Rows that are kept, drawn from all, at least 10.
        steps: Most steps of the solver for each penalty.
        seed: Draws the rows and who is held out.

    Raises:
        ConfigError: If an argument is out of range.
    """

    kinds = frozenset({"classes", "values"})
    bounds = (float("-inf"), 1.0)

    def __init__(self, *, max_rows: int = 5000, steps: int = 60, seed: int = 0) -> None:
        if max_rows < 10 or steps < 1:
            raise ConfigError(f"LinearProbe: max_rows is at least 10 and steps at least 1; got {max_rows!r} and {steps!r}.")
        self.steps = steps
        self._sample = RowSample(max_rows, seed=seed)

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        self._sample.update(rows.astype(np.float32), target, numbers)

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        self._sample.merge(other._sample)

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If there are fewer than ten rows with a target, or their targets are all the same.
        """
        target = self._sample.targets
        if self._target_kind != "values":
            labels = target.astype(np.int64)
            class_count(self, np.bincount(labels) if len(labels) else np.zeros(0))
        if len(target) < 10:
            raise DataError(f"LinearProbe needs at least ten rows with a target; got {len(target)}.")
        rows = self._sample.rows.astype(np.float64)
        # The sample comes in the order of its hashes, which is as good as a shuffle.
        held = max(1, len(rows) // 5)
        mean, spread = rows[held:].mean(axis=0), rows[held:].std(axis=0)
        rows = (rows - mean) / np.where(spread > 1e-6 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf)
        parts = rows[:held], rows[held : 2 * held], rows[2 * held :]
        if self._target_kind == "values":
            return self._values(parts, np.asarray(target, dtype=np.float64), held)
        return self._classes(parts, labels, held)

    def _classes(self, parts: tuple[Floats, Floats, Floats], labels: NDArray[np.int64], held: int) -> float:
        test, choosing, fitting = parts
        classes = int(labels.max()) + 1
        start = np.zeros((classes, test.shape[1] + 1))
        best, chosen = -1.0, start
        for penalty in _PENALTIES:
            start = fit_multinomial(fitting, labels[2 * held :], penalty, start, steps=self.steps)
            right = float(((choosing @ start[:, :-1].T + start[:, -1]).argmax(axis=1) == labels[held : 2 * held]).mean())
            if right > best:
                best, chosen = right, start
        return float(((test @ chosen[:, :-1].T + chosen[:, -1]).argmax(axis=1) == labels[:held]).mean())

    def _values(self, parts: tuple[Floats, Floats, Floats], values: Floats, held: int) -> float:
        test, choosing, fitting = parts
        varied = values[:held].var(axis=0) > 0
        if not varied.any():
            raise DataError("LinearProbe needs values that differ among the rows held out.")
        values = values[:, varied]
        fits = fit_ridge(fitting, values[2 * held :], np.array(_PENALTIES))
        errors = [
            (((choosing @ weight.T + bias - values[held : 2 * held]) ** 2) / values[2 * held :].var(axis=0).clip(1e-30)).mean()
            for weight, bias in fits
        ]
        weight, bias = fits[int(np.argmin(errors))]
        wrong = ((test @ weight.T + bias - values[:held]) ** 2).mean(axis=0)
        return float((1.0 - wrong / values[:held].var(axis=0)).mean())

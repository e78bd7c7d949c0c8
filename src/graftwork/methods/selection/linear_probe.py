"""Linear probe: how well a linear model on the frozen features predicts rows that it was not fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.math.linear_fits import fit_multinomial, fit_ridge
from graftwork.math.row_sample import RowSample, row_keys
from graftwork.methods.selection.base import CheckedScorer, class_count
from graftwork.methods.selection.probe_sums import PENALTIES, ProbeSums

__all__ = ["LinearProbe"]

Floats = NDArray[np.float64]


class LinearProbe(CheckedScorer):
    """Reads class indices (score: accuracy in [0, 1]) or values (score: mean R squared, at most 1).

    A fifth of the rows is held out; the penalty is chosen on another fifth, on standardised features. Up to ``max_rows`` rows are
    kept, and classes are told by multinomial logistic regression. Of more rows none is kept: all of them count, through the closed
    forms of :mod:`graftwork.methods.selection.probe_sums` (a linear discriminant for classes, ridge regression for values).

    Args:
        max_rows: Most rows that are kept, at least 10.
        steps: Most steps of the logistic regression for each penalty.
        seed: Draws who is held out.

    Raises:
        ConfigError: If an argument is out of range.
    """

    kinds = frozenset({"classes", "values"})
    bounds = (float("-inf"), 1.0)
    passes = 2

    def __init__(self, *, max_rows: int = 5000, steps: int = 60, seed: int = 0) -> None:
        if max_rows < 10 or steps < 1:
            raise ConfigError(f"LinearProbe: max_rows is at least 10 and steps at least 1; got {max_rows!r} and {steps!r}.")
        self.max_rows, self.steps, self.seed = max_rows, steps, seed
        self._sample = RowSample(max_rows, seed=seed)
        self._sums: ProbeSums | None = None
        self._counts = np.zeros(0)
        self._passed, self._second = 0, False

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        if numbers is None:
            numbers = np.arange(self._passed, self._passed + len(rows), dtype=np.int64)
        self._passed += len(rows)
        if self._second:
            if self._sums is not None and self._target_kind == "classes":
                self._sums.judge(rows, np.asarray(target, dtype=np.int64), row_keys(numbers, self.seed))
            return
        if self._target_kind == "classes":
            found = np.bincount(np.asarray(target, dtype=np.int64), minlength=len(self._counts)).astype(np.float64)
            found[: len(self._counts)] += self._counts
            self._counts = found
        if self._sums is None and self._passed <= self.max_rows:
            self._sample.update(rows, target, numbers)
            return
        if self._sums is None:
            self._sums = ProbeSums()
            if self._sample.seen:
                self._sums.add(self._sample.rows, self._sample.targets, self._sample.keys)
            self._sample = RowSample(self.max_rows, seed=self.seed)  # what it kept is in the sums now
        self._sums.add(rows, target, row_keys(numbers, self.seed))

    def finish_pass(self) -> None:
        """Fit the closed forms, if there are too many rows to be kept."""
        self._second, self._passed = True, 0
        if self._sums is not None:
            self._sums.fit()

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If there are fewer than ten rows with a target, or their targets are all the same.
        """
        if self._target_kind != "values":
            class_count(self, self._counts)
        if self._sums is not None:
            return self._sums.score()
        target = self._sample.targets
        if len(target) < 10:
            raise DataError(f"LinearProbe needs at least ten rows with a target; got {len(target)}.")
        rows = self._sample.rows
        # The sample comes in the order of its hashes, which is as good as a shuffle.
        held = max(1, len(rows) // 5)
        mean, spread = rows[held:].mean(axis=0), rows[held:].std(axis=0)
        rows = (rows - mean) / np.where(spread > 1e-6 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf)
        parts = rows[:held], rows[held : 2 * held], rows[2 * held :]
        if self._target_kind == "values":
            return self._values(parts, np.asarray(target, dtype=np.float64), held)
        return self._classes(parts, target.astype(np.int64), held)

    def _classes(self, parts: tuple[Floats, Floats, Floats], labels: NDArray[np.int64], held: int) -> float:
        test, choosing, fitting = parts
        classes = int(labels.max()) + 1
        start = np.zeros((classes, test.shape[1] + 1))
        best, chosen = -1.0, start
        for penalty in PENALTIES:
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
        fits = fit_ridge(fitting, values[2 * held :], np.array(PENALTIES))
        errors = [
            (((choosing @ weight.T + bias - values[held : 2 * held]) ** 2) / values[2 * held :].var(axis=0).clip(1e-30)).mean()
            for weight, bias in fits
        ]
        weight, bias = fits[int(np.argmin(errors))]
        wrong = ((test @ weight.T + bias - values[:held]) ** 2).mean(axis=0)
        return float((1.0 - wrong / values[:held].var(axis=0)).mean())

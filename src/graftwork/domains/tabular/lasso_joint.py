"""Multi-task lasso as a plan: linear models of all targets that use the same columns.

The penalty is on the length of each column's weights over all targets (Obozinski, Taskar and Jordan, "Multi-task feature
selection", 2006), so that a column serves all targets or none; scikit-learn (https://scikit-learn.org) minimises it. Numbers are
standardised and predicted by its solution. Classes take part as columns of 0 and 1 of variance 1 a target, one against the rest,
and are predicted by logistic regression on the columns that were chosen, each scaled by how much it serves the targets. Missing labels
are filled in by ridge regression on the rows that have them, so that their target has a say in the choice; it is then predicted by ridge
regression on these columns. The penalty, and whether numbers are bent, are chosen on held-out training rows by labels that are known.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.linear import LinearLearner, spaced
from graftwork.domains.tabular.linear_fits import INVERSE_PENALTIES, RidgePath, choose_ridge, logistic_losses
from graftwork.domains.tabular.one_shot import State

__all__ = ["JointLassoLearner", "lasso_path"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
PENALTIES: Floats = 10.0 ** np.arange(-0.1, -3.01, -0.15)
"""As shares of the penalty above which no column is left, strongest first."""
_WORK = 2e7
"""Rows times columns times targets of one fit: of more rows some, evenly spaced, are used."""
_WORSE = 3
"""Weaker penalties are not tried after so many that were no better than the best."""
_STEPS = 300


def lasso_path(x: Floats, y: Floats, shares: Sequence[float]) -> Iterator[tuple[Floats, Floats]]:
    """Yield weights ``[D, T]`` and intercepts ``[T]`` of multi-task lasso for each penalty in turn.

    Args:
        x: Features ``[n, D]``; they are standardised inside, so that the penalty means the same for each.
        y: Targets ``[n, T]``, without missing values.
        shares: Penalties as shares of the smallest one that leaves no column, falling.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import MultiTaskLasso

    mean, level, scale = x.mean(axis=0), y.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    seen = np.asfortranarray((x - mean) / scale)
    centred = np.asfortranarray(y - level)
    largest = float(np.linalg.norm(seen.T @ centred, axis=1).max(initial=0.0)) / max(len(x), 1)
    model: Any = MultiTaskLasso(fit_intercept=False, warm_start=True, max_iter=_STEPS, tol=1e-4, random_state=0)
    for share in shares:
        weights = np.zeros((x.shape[1], y.shape[1]))
        if largest > 0:
            model.set_params(alpha=share * largest)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a stopped fit is a fit with a little more penalty
                model.fit(seen, centred)
            weights = np.asarray(model.coef_, dtype=np.float64).T / scale[:, None]
        yield weights, level - mean @ weights


class JointLassoLearner(LinearLearner):
    """Linear models of all targets on the columns that serve them together.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "multi-task lasso"
    slug = "lasso-joint"

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Choose penalty and design, solve for all targets, and fit classes on the columns that were chosen."""
        rows, every, _ = self._prepared(self.blocks)
        rows, every = self._affordable(rows, every)
        known = self._known(rows)
        options = []
        for columns in self._designs():
            y = self._filled(rows, every[:, columns], known)
            options.append((*self._choose(rows, every[:, columns], y, known), columns, y))
        error, share, columns, y = min(options, key=lambda option: option[0])
        x = every[:, columns]
        *_, (found, levels) = lasso_path(x, y, [one for one in PENALTIES if one >= share])
        chosen = np.flatnonzero(np.any(found != 0.0, axis=1))
        # Columns that serve the targets more are shrunk less.
        strength = np.linalg.norm(found[chosen], axis=1)
        strength = strength / max(float((strength * x[:, chosen].std(axis=0)).max(initial=0.0)), 1e-12)
        weights, intercepts = np.zeros((self._design.width, y.shape[1])), np.zeros(y.shape[1])
        for block, place in zip(self.blocks, self._places(), strict=True):
            has_label = np.flatnonzero(block.known[rows])
            if block.is_number and len(has_label) == len(rows):
                weights[np.ix_(columns, place)], intercepts[place] = found[:, place], levels[place]
                continue
            # Without a column a constant one stands in, whose weight is dropped.
            part = strength * x[np.ix_(has_label, chosen)] if len(chosen) else np.zeros((len(has_label), 1))
            own, intercepts[place] = self._on_chosen(block, rows[has_label], part)
            if len(chosen):
                weights[np.ix_(columns[chosen], place)] = strength[:, None] * own
        facts = {"columns": len(chosen), "of": len(columns), "penalty": float(share), "numbers": self._words(columns)}
        return {"weights": weights, "intercepts": intercepts}, {**facts, "held-out error": float(error)}

    def _affordable(self, rows: Rows, x: Floats) -> tuple[Rows, Floats]:
        width = sum(block.width for block in self.blocks)
        places = spaced(len(rows), max(500, int(_WORK / (x.shape[1] * width))))
        return rows[places], x[places]

    def _known(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which targets are known, ``[n, T]``."""
        parts = [np.repeat(block.known[rows][:, None], block.width, axis=1) for block in self.blocks]
        return np.concatenate(parts, axis=1)

    def _filled(self, rows: Rows, x: Floats, known: NDArray[np.bool_]) -> Floats:
        """Return the targets ``[n, T]``: numbers standardised, classes as columns of variance 1 a target, missing ones filled in."""
        parts = []
        for block in self.blocks:
            y = block.targets(rows)
            if not block.is_number:
                shares = block.shares(self.train_rows)
                y = (y - shares) / np.sqrt(max(float((shares * (1.0 - shares)).sum()), 1e-6))
            parts.append(y)
        found = np.concatenate(parts, axis=1)
        for place in self._places():
            there, missing = known[:, place[0]], ~known[:, place[0]]
            if missing.any():
                y = found[np.ix_(there, place)]
                own, level = (
                    RidgePath.of(x[there]).weights(x[there], y, 0.1) if there.sum() > 1 else (0.0 * x[:1].T, y.mean(axis=0))
                )
                found[np.ix_(missing, place)] = x[missing] @ own + level
        return found

    def _choose(self, rows: Rows, x: Floats, y: Floats, known: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the smallest error on held-out labels, a mean over the targets, and the penalty that has it."""
        errors, count = np.zeros(len(PENALTIES)), 0
        for fit, held in inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds"), folds=3):
            seen, best, behind = known[held], np.inf, 0
            for number, (weights, levels) in enumerate(lasso_path(x[fit], y[fit], PENALTIES.tolist())):
                gap = np.where(seen, x[held] @ weights + levels - y[held], 0.0)
                error = float((np.square(gap).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)).mean())
                errors[number] += error
                behind = 0 if error < best else behind + 1
                best = min(best, error)
                if behind >= _WORSE:
                    errors[number + 1 :] = np.inf
                    break
            count += 1
        if not count:
            return 0.0, float(PENALTIES[len(PENALTIES) // 2])
        place = int(errors.argmin())
        return float(errors[place]) / count, float(PENALTIES[place])

    def _on_chosen(self, block: LabelBlock, rows: Rows, x: Floats) -> tuple[Floats, Floats]:
        """Return weights and intercepts of a target alone on the chosen columns ``x`` of its rows."""
        folds = list(inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds")))
        if block.is_number:
            y = block.targets(rows)
            return RidgePath.of(x).weights(x, y, choose_ridge(x, y, folds)[0])
        losses = logistic_losses(x, block.classes(rows), block.num_classes, folds)
        inverse = INVERSE_PENALTIES[int(losses.argmin())] if losses.any() else 1.0
        return self._logistic(block, rows, x, inverse)

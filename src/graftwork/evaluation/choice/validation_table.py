"""Validation scores of all finalists on one scale, and what they let expect of each plan: test rows measure, they never select.

A score counts as percent of the best plan's score of its task, so that tasks in different units can be averaged, with weights if
the user gives any. Scores of one seed (or fold) share the luck of its validation rows, which is taken out first; a plan with
fewer seeds than others has a mean with more luck in it, so it is drawn towards the middle of all plans (empirical Bayes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graftwork.core.optional import require
from graftwork.core.records import Plan, Scores, TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.word import MINIMAL_EFFECT
from graftwork.evaluation.delta_m import SMALLEST_SCORE
from graftwork.evaluation.metrics import default_metric, find_metric
from graftwork.evaluation.paired import corrected_resampled_ttest
from graftwork.interfaces.metric import Floats
from graftwork.math.weighted_sums import mean_of_columns

__all__ = ["BOUND_LEVEL", "SURE_ENOUGH", "Unit", "ValidationTable", "task_scale"]

SURE_ENOUGH = 0.9
"""Probability from which another plan's lead on one task is worth another model."""
BOUND_LEVEL = 0.95
"""Probability with which a change lies above its lower bound."""
SMALLEST_SHARE = 0.05
"""Errors count relative to the best one, but at least to this share of the middle plan's: a plan with almost no error must not
decide over all tasks."""

Unit = tuple[int, int]
"""What was trained and validated once: a seed, and a fold of it (0 without folds)."""


class ValidationTable:
    """Validation scores of all finalists, a row for each seed (or fold).

    Args:
        suite: The suite; its splits say how many rows seeds or folds exchange.
        finals: Runs by plan.
        plans: Plan records; the reference is the best plan of the role ``reference``.
        weights: Weights of the tasks, above 0; tasks without one weigh 1.
    """

    def __init__(
        self,
        suite: Suite,
        finals: Mapping[str, Sequence[FinalRun]],
        plans: Mapping[str, Plan],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.tasks = suite.tasks
        self.num_train, self.num_val = len(suite.splits["train"]), len(suite.splits["val"])
        raw = {name: _units(runs, self.tasks) for name, runs in finals.items()}
        self.units: tuple[Unit, ...] = tuple(sorted({unit for table in raw.values() for unit in table}))
        unknown = np.full(len(self.tasks), np.nan)
        # [P, U, T], larger is better.
        signs = np.array([1.0 if find_metric(default_metric(task)).higher_is_better else -1.0 for task in self.tasks])
        table = np.array([[table.get(unit, unknown) for unit in self.units] for table in raw.values()]).reshape(
            len(raw), len(self.units), len(self.tasks)
        )
        self._names = list(raw)
        self._scaled: Floats = 100.0 * signs * table / self._scales(table)
        # Tasks that nobody was validated on count for nobody.
        share = np.array([(weights or {}).get(task.name, 1.0) for task in self.tasks])
        self._share: Floats = np.where(np.isfinite(self._scaled).any(axis=(0, 1)), share, 0.0)
        self._expected: Floats = np.stack([self._shrunken(index) for index in range(len(self.tasks))], axis=1)
        self.reference: str | None = self.best([name for name in finals if plans[name].role == "reference"]) or next(
            (name for name in finals if plans[name].role == "reference"), None
        )

    def _scales(self, table: Floats) -> Floats:
        """Return what 100 percent of each task are: the best plan's mean score, ``[T]``."""
        means = [mean_of_columns(table[:, :, index]) for index in range(len(self.tasks))]
        signs = [1.0 if find_metric(default_metric(task)).higher_is_better else -1.0 for task in self.tasks]
        return np.array([task_scale(task, sign * own) for task, sign, own in zip(self.tasks, signs, means, strict=True)])

    def _shrunken(self, index: int) -> Floats:
        """Return each plan's expected score of a task, ``[P]``; NaN without a score."""
        values = self._scaled[:, :, index]
        known = np.isfinite(values)
        counts = known.sum(axis=1)
        plans = np.flatnonzero(counts)
        expected = np.full(len(values), np.nan)
        if not len(plans):
            return expected
        effects, noise = _additive(values[plans], known[plans])
        expected[plans] = effects
        if len(plans) < 3 or not noise > 0:
            return expected
        middle = float(np.median(effects))
        # Seeds share most of their training rows, so their mean is less sure than that of independent ones.
        errors = noise * (1 / counts[plans] + self.num_val / max(1, self.num_train))
        spread = max(0.0, float(((effects - middle) ** 2).mean() - errors.mean()))
        expected[plans] = middle + (effects - middle) * spread / (spread + errors) if spread > 0 else effects
        return expected

    def expected(self, plan: str, task: str | None = None) -> float:
        """Return the score to expect, in percent of the best plan's score, higher is better; NaN if a task has none.

        Args:
            plan: The plan.
            task: One task; None gives the (weighted) mean over tasks.
        """
        scores = self._expected[self._names.index(plan)]
        if task is not None:
            return float(scores[self._column(task)])
        counted = self._share > 0
        return float(scores[counted] @ self._share[counted] / self._share.sum()) if counted.any() else float("nan")

    def counts(self, task: str) -> bool:
        """Return whether any plan was validated on a task."""
        return bool(self._share[self._column(task)] > 0)

    def behind(self, plan: str, other: str, task: str | None = None) -> float:
        """Return how far a plan's expected score is behind another's, in percent of the best score; negative if it is ahead."""
        return self.expected(other, task) - self.expected(plan, task)

    def best(self, candidates: Iterable[str], task: str | None = None) -> str | None:
        """Return the candidate with the best expected score (first of equals); None if no candidate has all scores."""
        means = {name: self.expected(name, task) for name in candidates}
        known = [name for name in means if not np.isnan(means[name])]
        # max keeps the first of equals, so the order of plans decides and not chance.
        return max(known, key=lambda name: means[name]) if known else None

    def differences(self, plan: str, other: str, task: str | None = None) -> dict[Unit, float]:
        """Return the difference of two plans in each seed (or fold) that both have, in percent of the best score.

        Args:
            plan: One plan.
            other: The other; its scores are taken off.
            task: One task; None gives the (weighted) mean over the tasks that both have.
        """
        both = self._scaled[self._names.index(plan)] - self._scaled[self._names.index(other)]
        if task is not None:
            values = both[:, self._column(task)]
        else:
            known = np.isfinite(both) & (self._share > 0)
            # A task that a fold has no rows of is left out of that fold's mean.
            total = known @ self._share
            values = np.where(total > 0, np.where(known, both, 0.0) @ self._share / np.where(total > 0, total, 1.0), np.nan)
        return {unit: float(value) for unit, value in zip(self.units, values, strict=True) if np.isfinite(value)}

    def lower_bound(self, plan: str, other: str, task: str | None = None) -> float:
        """Return the change from ``other`` to ``plan`` that the true one exceeds with 95 % probability; NaN from one seed."""
        found = list(self.differences(plan, other, task).values())
        if len(found) < 2:
            return float("nan")
        test = corrected_resampled_ttest(found, max(1, self.num_train), self.num_val)
        # Seeds that agree exactly have no noise to allow for.
        if np.isnan(test.standard_error):
            return test.mean
        student = require("scipy.stats", extra="train", purpose="A lower bound").t
        return float(test.mean - student.ppf(BOUND_LEVEL, test.degrees) * test.standard_error)

    def is_beyond_noise(self, better: str, other: str, task: str | None = None, *, probability: float = SURE_ENOUGH) -> bool:
        """Return whether the lead of ``better`` over ``other`` is large enough to matter and too sure to be noise.

        Args:
            better: One plan.
            other: The other.
            task: One task; None takes the (weighted) mean over tasks.
            probability: That of a true lead from which it counts as sure.
        """
        found = list(self.differences(better, other, task).values())
        # NaN is no lead.
        if not found or not float(np.mean(found)) >= MINIMAL_EFFECT:
            return False
        test = corrected_resampled_ttest(found, max(1, self.num_train), self.num_val)
        # Two seeds that agree exactly leave no doubt; one says nothing about noise.
        return len(found) > 1 and (bool(np.isnan(test.p_value)) or test.probability_positive >= probability)

    def _column(self, task: str) -> int:
        return [item.name for item in self.tasks].index(task)


def task_scale(task: TaskSpec, scores: Floats) -> float:
    """Return what 100 percent of a task are: the best plan's score, without its sign; NaN if no plan has one.

    Args:
        task: The task.
        scores: Mean primary metric of each plan, its sign turned so that larger is better, ``[P]``; NaN is unknown.
    """
    metric, known = find_metric(default_metric(task)), scores[np.isfinite(scores)]
    if not len(known):
        return float("nan")
    bounded = np.isfinite(metric.high) and metric.high <= 1.0
    # With both floors: a division by almost nothing would let one task decide the mean over all.
    least = SMALLEST_SCORE if bounded else max(1e-12, SMALLEST_SHARE * float(np.median(np.abs(known))))
    return max(abs(float(known.max())), least)


def _units(runs: Sequence[FinalRun], tasks: Sequence[TaskSpec]) -> dict[Unit, Floats]:
    """Return the primary validation metrics of a plan, ``{(seed, fold): [T]}``."""

    def row(scores: Scores) -> Floats:
        return np.array([scores.get(task.name, {}).get(default_metric(task), np.nan) for task in tasks], dtype=np.float64)

    found: dict[Unit, Floats] = {}
    for run in runs:
        parts = run.validation_parts or {0: run.validation}
        found |= {(run.seed, part): row(scores) for part, scores in parts.items()}
    return found


def _additive(values: Floats, known: Floats) -> tuple[Floats, float]:
    """Fit ``plan + unit`` to a table with holes.

    Args:
        values: ``[P, U]``.
        known: Where there is a value, ``[P, U]``; every plan has one.

    Returns:
        The plans' effects plus the mean over units, ``[P]``, and the variance of what is left; NaN if nothing is left over.
    """
    plans = len(values)
    row, column = np.nonzero(known)
    seen = values[row, column]
    used = np.unique(column)
    place = np.searchsorted(used, column)
    design = np.zeros((len(seen) + 1, plans + len(used)))
    design[np.arange(len(seen)), row] = 1.0
    design[np.arange(len(seen)), plans + place] = 1.0
    # The units' effects sum to zero: plans keep the level of the scores.
    design[-1, plans:] = 1.0
    solution = np.linalg.lstsq(design, np.append(seen, 0.0), rcond=None)[0]
    left = seen - design[:-1] @ solution
    freedom = len(seen) - plans - len(used) + 1
    return solution[:plans], float((left**2).sum() / freedom) if freedom > 0 else float("nan")

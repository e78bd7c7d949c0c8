"""Relative change of one plan against another, with its uncertainty over test rows and over seeds.

Two levels: the paired bootstrap over test rows (or groups) says how far another sample of rows would move the change; Student's t
over the paired differences of seeds says how far other seeds (initialisation, batches, training rows) would. A bootstrap over the
two to five seeds that a run can afford would be far too narrow, so that level draws from t instead, with the correction of Nadeau
and Bengio (see :mod:`graftwork.evaluation.paired`) for the training rows that seeds share. The two add up. In a cross-validation
the mean over folds is one over all rows, so there the folds add only what the correction asks for, by a variance that is moderated: the
two to ten folds of a run say little of it, and the rows tell how far folds differ at least (Smyth, "Linear Models and Empirical Bayes
Methods", Statistical Applications in Genetics and Molecular Biology 2004, https://doi.org/10.2202/1544-6115.1027, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graftwork.core.optional import require
from graftwork.core.records import Interval, TaskSpec
from graftwork.evaluation.bootstrap import percentile_interval
from graftwork.evaluation.delta_m import relative_changes
from graftwork.interfaces.metric import Floats, Metric
from graftwork.math.weighted_sums import divide, mean_of_columns

__all__ = ["Change", "SeedScores", "change", "mean_change"]

_PRIOR_DEGREES, _PRIOR_SHARE = 4, 2.0
"""What is known of the variance between folds before they are seen: so many degrees of freedom, and so many times the variance that the
rows alone bring. On generated suites folds differ by about one to four times that. Without it the interval of two folds is several times
as wide as what is known, and where training rows matter it covers less: ``test_folds_that_differ_by_their_training_rows``."""


@dataclass(frozen=True, slots=True)
class SeedScores:
    """One metric of one plan: every seed, on the test rows and on every resample of them."""

    seeds: tuple[int, ...]
    point: Floats
    """Values on the test rows, ``[S]``."""
    resampled: Floats
    """Values on the resamples, ``[S, B]``; all plans have the same resamples."""
    parts: Floats | None = None
    """In a cross-validation, the values on the rows of each fold, ``[F]``: there, folds are what seeds are elsewhere."""
    part_ids: tuple[int, ...] = ()
    """Numbers of these folds."""

    def interval(self, metric: Metric, *, level: float = 0.95) -> Interval:
        """Return the mean over seeds with its interval over rows and seeds."""
        value = float(mean_of_columns(self.point))
        rows = mean_of_columns(self.resampled.T)
        noise = self.point if self.parts is None else np.zeros(0)  # other models answered other rows: resampling covers both
        return percentile_interval(value, rows + _seed_noise(noise, len(rows)), level=level, low=metric.low, high=metric.high)


@dataclass(frozen=True, slots=True)
class Change:
    """A change in percent, positive is better, and what is known of its uncertainty."""

    value: float
    """Change of the mean over seeds."""
    rows: Floats
    """The same on every resample of the test rows, ``[B]``."""
    seeds: Floats
    """Change of each seed (or fold) that both plans have, ``[S]``; empty if they share none."""
    unpaired_error: float = 0.0
    """Standard error over seeds where the plans share fewer than two; 0 if both have one only and nothing is known."""
    unpaired_degrees: int = 1
    """Its degrees of freedom."""
    ids: tuple[int, ...] = ()
    """Seed (or fold) of each entry of ``seeds``; empty numbers them from 0."""
    exchange: float = 0.0
    """Rows that the seeds (or folds) exchange with the training rows, as a share of those: widens the error over seeds."""
    in_folds: bool = False
    """Whether ``seeds`` holds the folds of a cross-validation: every row is in one of them."""
    units: int = 0
    """Independent test rows (or groups); 0 if they are many."""

    @property
    def by_id(self) -> dict[int, float]:
        """Return ``{seed or fold: change}``."""
        return dict(zip(self.ids or range(len(self.seeds)), map(float, self.seeds), strict=True))

    def seed_error(self) -> tuple[float, int]:
        """Return the standard error over seeds (or folds) and its degrees of freedom; 0 if nothing is known of it."""
        known = self.seeds[~np.isnan(self.seeds)]
        if len(known) < 2:
            # With one seed a side the error is 0: then the interval speaks of rows only, which nothing is asserted from.
            return self.unpaired_error, self.unpaired_degrees
        variance, own, degrees = float(known.var(ddof=1)), 1 / len(known), len(known) - 1
        by_rows = len(known) * self.row_error() ** 2  # of a fold, which has so many times fewer rows
        if self.in_folds and not np.isnan(by_rows):
            # Folds differ by the rows that are in them, which the resamples of all rows tell more surely.
            own = own if variance > 2 * by_rows else 0.0
            variance = (_PRIOR_DEGREES * _PRIOR_SHARE * by_rows + degrees * variance) / (_PRIOR_DEGREES + degrees)
            degrees += _PRIOR_DEGREES
        return float(np.sqrt(variance * (own + self.exchange))), degrees

    def row_error(self) -> float:
        """Return the standard error over test rows; NaN if nothing is known."""
        known = self.rows[~np.isnan(self.rows)]
        # A bootstrap over n rows is too narrow by this factor.
        narrow = np.sqrt(self.units / (self.units - 1)) if self.units > 1 else 1.0
        return float(known.std(ddof=1) * narrow) if len(known) > 1 else float("nan")

    @property
    def draws(self) -> Floats:
        """Return draws of the change from both levels, ``[B]``."""
        error, degrees = self.seed_error()
        return self.rows + error * _student(degrees, len(self.rows))

    def interval(self, *, level: float = 0.95) -> Interval:
        """Return the value with its confidence interval over rows and seeds."""
        return percentile_interval(self.value, self.draws, level=level)

    @property
    def p_value(self) -> float:
        """Return the two-sided p-value of "no change", over rows and seeds together; NaN if nothing is known.

        Student's t with the degrees of freedom of Welch and Satterthwaite: many if the rows are what is unsure, few if the seeds
        are. A share of draws could not be smaller than one over their number, which is too coarse to correct for many tasks.
        """
        rows, (seeds, degrees) = self.row_error(), self.seed_error()
        if np.isnan(self.value) or np.isnan(rows):
            return float("nan")
        error = float(np.hypot(rows, seeds))
        if error <= 1e-12 * max(1.0, abs(self.value)):
            # Plans that answer every row alike are no evidence of a difference.
            return 1.0 if abs(self.value) <= 1e-12 else 0.0
        parts = (rows / error) ** 4 / (self.units - 1 if self.units > 1 else 1e6) + (seeds / error) ** 4 / degrees
        student = require("scipy.stats", extra="train", purpose="The p-value of a change").t
        return float(2 * student.sf(abs(self.value) / error, 1 / parts))

    @property
    def probability(self) -> float:
        """Return the share of draws above zero; NaN if nothing is known."""
        known = self.draws[~np.isnan(self.draws)]
        return float((known > 0).mean()) if len(known) else float("nan")


def _student(degrees: int, count: int) -> Floats:
    """Return ``count`` draws of Student's t; fixed, in an order that has nothing to do with that of the row resamples."""
    # The same draws at every call: a verdict must not change when it is asked again.
    return np.random.default_rng([71, degrees]).standard_t(degrees, size=count)


def _seed_noise(values: Floats, count: int) -> Floats:
    """Return draws of the error of a mean over few seeds; zeros if there is one seed only and nothing is known."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return np.zeros(count)
    # Student's t and not the normal: with three seeds its tails are twice as long.
    return known.std(ddof=1) / np.sqrt(len(known)) * _student(len(known) - 1, count)


def change(
    spec_or_metric: TaskSpec | str,
    plan: SeedScores,
    reference: SeedScores,
    *,
    exchange: float = 0.0,
    units: int = 0,
    relative: Callable[..., Floats] = relative_changes,
) -> Change:
    """Return the relative change of a plan's metric against a reference's, paired by test row and by seed (or fold).

    Args:
        spec_or_metric: The task (its primary metric) or the metric's name.
        plan: Scores of the plan.
        reference: Scores of the reference, on the same resamples.
        exchange: Rows that seeds (or folds) exchange with the training rows, as a share of those, at least 0.
        units: Independent test rows (or groups); 0 if they are many.
        relative: What a change is relative to: the reference, or what it lacks (:func:`~graftwork.evaluation.delta_m.skills`).
    """
    mean = float(mean_of_columns(reference.point))
    value = float(relative(spec_or_metric, mean_of_columns(plan.point), mean))
    rows = relative(spec_or_metric, mean_of_columns(plan.resampled.T), mean_of_columns(reference.resampled.T))
    if plan.parts is not None and reference.parts is not None:
        base = float(np.nanmean(reference.parts)) if np.isfinite(reference.parts).any() else float("nan")
        left, right = (relative(spec_or_metric, one.parts, base) for one in (plan, reference))  # type: ignore[arg-type]
        ids, folds = _paired(plan.part_ids or range(len(left)), left, reference.part_ids or range(len(right)), right)
        return Change(value, rows, folds, ids=ids, exchange=exchange, in_folds=len(ids) > 1, units=units)
    # All seeds are taken relative to the same mean, so that their mean is the value.
    plan_relative = relative(spec_or_metric, plan.point, mean)
    reference_relative = relative(spec_or_metric, reference.point, mean)
    ids, seeds = _paired(plan.seeds, plan_relative, reference.seeds, reference_relative)
    # Pairing needs two common seeds; otherwise the spread of each side is all there is.
    error, degrees = (0.0, 1) if len(ids) > 1 else _unpaired_error([plan_relative, reference_relative])
    return Change(value, rows, seeds, error, degrees, ids=ids, exchange=exchange, units=units)


def _paired(left_ids: Sequence[int], left: Floats, right_ids: Sequence[int], right: Floats) -> tuple[tuple[int, ...], Floats]:
    """Return the seeds (or folds) that both sides have, and the differences of their values."""
    values = dict(zip(right_ids, map(float, right), strict=True))
    found = {number: float(value) - values[number] for number, value in zip(left_ids, left, strict=True) if number in values}
    return tuple(found), np.array(list(found.values()), dtype=np.float64)


def _unpaired_error(sides: Sequence[Floats]) -> tuple[float, int]:
    """Return the standard error of a difference of means with a common variance, and its degrees of freedom."""
    known = [side[~np.isnan(side)] for side in sides]
    # Pooled: each side has spent one degree on its own mean.
    degrees = sum(len(side) - 1 for side in known if len(side))
    if degrees < 1 or not all(len(side) for side in known):
        return 0.0, 1
    variance = sum(float(((side - side.mean()) ** 2).sum()) for side in known) / degrees
    return float(np.sqrt(variance * sum(1 / len(side) for side in known))), degrees


def mean_change(changes: Sequence[Change], weights: Sequence[float] | None = None) -> Change:
    """Return delta-m with its uncertainty: the mean over tasks, resample by resample and seed by seed.

    Tasks whose change is undefined are left out. Seeds are paired by their numbers: those that every task has count.

    Args:
        changes: One change a task, all of the same pair of plans on the same resamples; at least one.
        weights: Weight of each task, above 0; None weighs them alike.

    Raises:
        ValueError: If there is none, or the numbers of changes and weights differ.
    """
    if not changes:
        raise ValueError("`changes` must hold at least one change.")
    if weights is not None and len(weights) != len(changes):
        raise ValueError(f"`weights` must hold one weight a change ({len(changes)}); got {len(weights)}.")
    pairs = list(zip(changes, weights if weights is not None else [1.0] * len(changes), strict=True))
    # If no change is defined, the first stands for all, so that the result is NaN and not an error.
    kept = [pair for pair in pairs if not np.isnan(pair[0].value)] or pairs[:1]
    items = [item for item, _ in kept]
    share = np.array([weight for _, weight in kept], dtype=np.float64)
    share /= share.sum()
    tables = [item.by_id for item in items]
    # A seed that one task lacks says nothing of the mean.
    ids = tuple(number for number in tables[0] if all(number in table for table in tables))
    seeds = np.array([[table[number] for table in tables] for number in ids], dtype=np.float64).reshape(len(ids), len(items))
    # Without common seeds the tasks' own errors stand in. Not divided by the root of the number of tasks: one seed moves all
    # tasks together.
    errors = [item.seed_error() for item in items]
    return Change(
        float(np.array([item.value for item in items]) @ share),
        _weighted(np.stack([item.rows for item in items], axis=1), share),
        _weighted(seeds, share),
        float(np.array([error for error, _ in errors]) @ share),
        # The fewest: the careful choice.
        min(degrees for _, degrees in errors),
        ids=ids,
        exchange=max(item.exchange for item in items),
        in_folds=all(item.in_folds for item in items),
        units=min(item.units for item in items),
    )


def _weighted(table: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of each row of ``[N, T]``, over what is not NaN."""
    known = ~np.isnan(table)
    return divide(np.where(known, table, 0.0) @ weights, known @ weights)

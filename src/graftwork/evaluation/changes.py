"""Relative change of one plan against another, with its uncertainty over test rows and over seeds.

Two levels: the paired bootstrap over test rows (or groups) says how far another sample of rows would move the change; Student's t
over the paired differences of seeds says how far other seeds (initialisation, batches, training rows) would. A bootstrap over the
two to five seeds that a run can afford would be far too narrow, so that level draws from t instead. The two add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftwork.core.records import Interval, TaskSpec
from graftwork.evaluation.bootstrap import percentile_interval
from graftwork.evaluation.delta_m import relative_changes
from graftwork.interfaces.metric import Floats, Metric
from graftwork.math.weighted_sums import mean_of_columns

__all__ = ["Change", "SeedScores", "change", "mean_change"]


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
    """Change of each seed that both plans have, ``[S]``; empty if they share none."""
    unpaired_error: float = 0.0
    """Standard error over seeds where the plans share fewer than two; 0 if both have one only and nothing is known."""
    unpaired_degrees: int = 1
    """Its degrees of freedom."""

    @property
    def draws(self) -> Floats:
        """Return draws of the change from both levels, ``[B]``."""
        if len(self.seeds) > 1:
            return self.rows + _seed_noise(self.seeds, len(self.rows))
        # With one seed a side the error is 0: then the interval speaks of rows only, which MIN_SEEDS accounts for.
        return self.rows + self.unpaired_error * _student(self.unpaired_degrees, len(self.rows))

    def interval(self, *, level: float = 0.95) -> Interval:
        """Return the value with its confidence interval over rows and seeds."""
        return percentile_interval(self.value, self.draws, level=level)

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


def change(spec_or_metric: TaskSpec | str, plan: SeedScores, reference: SeedScores) -> Change:
    """Return the relative change of a plan's metric against a reference's, paired by test row and by seed.

    Args:
        spec_or_metric: The task (its primary metric) or the metric's name.
        plan: Scores of the plan.
        reference: Scores of the reference, on the same resamples.
    """
    mean = float(mean_of_columns(reference.point))
    value = float(relative_changes(spec_or_metric, mean_of_columns(plan.point), mean))
    rows = relative_changes(spec_or_metric, mean_of_columns(plan.resampled.T), mean_of_columns(reference.resampled.T))
    if plan.parts is not None and reference.parts is not None and len(plan.parts) == len(reference.parts):
        base = float(mean_of_columns(reference.parts))
        left, right = (relative_changes(spec_or_metric, parts, base) for parts in (plan.parts, reference.parts))
        return Change(value, rows, left - right)
    # All seeds are taken relative to the same mean, so that their mean is the value.
    plan_relative = relative_changes(spec_or_metric, plan.point, mean)
    reference_relative = relative_changes(spec_or_metric, reference.point, mean)
    common = [(plan.seeds.index(seed), reference.seeds.index(seed)) for seed in plan.seeds if seed in reference.seeds]
    seeds = np.array([plan_relative[left] - reference_relative[right] for left, right in common])
    # Pairing needs two common seeds; otherwise the spread of each side is all there is.
    error, degrees = (0.0, 1) if len(common) > 1 else _unpaired_error([plan_relative, reference_relative])
    return Change(value, rows, seeds, error, degrees)


def _unpaired_error(sides: Sequence[Floats]) -> tuple[float, int]:
    """Return the standard error of a difference of means with a common variance, and its degrees of freedom."""
    known = [side[~np.isnan(side)] for side in sides]
    # Pooled: each side has spent one degree on its own mean.
    degrees = sum(len(side) - 1 for side in known if len(side))
    if degrees < 1 or not all(len(side) for side in known):
        return 0.0, 1
    variance = sum(float(((side - side.mean()) ** 2).sum()) for side in known) / degrees
    return float(np.sqrt(variance * sum(1 / len(side) for side in known))), degrees


def mean_change(changes: Sequence[Change]) -> Change:
    """Return delta-m with its uncertainty: the mean over tasks, resample by resample and seed by seed.

    Tasks whose change is undefined are left out.

    Args:
        changes: One change a task, all of the same pair of plans on the same resamples; at least one.

    Raises:
        ValueError: If there is none.
    """
    if not changes:
        raise ValueError("`changes` must hold at least one change.")
    # If no change is defined, the first stands for all, so that the result is NaN and not an error.
    kept = [item for item in changes if not np.isnan(item.value)] or list(changes[:1])
    # Tasks have one entry for each seed; the shortest series limits the mean.
    shared = min(len(item.seeds) for item in kept)
    seeds = mean_of_columns(np.stack([item.seeds[:shared] for item in kept], axis=1)) if shared else np.zeros(0)
    # Not divided by the root of the number of tasks: one seed moves all tasks together.
    error = float(np.mean([item.unpaired_error for item in kept]))
    value = float(np.mean([item.value for item in kept]))
    # The fewest: the careful choice.
    degrees = min(item.unpaired_degrees for item in kept)
    return Change(value, mean_of_columns(np.stack([item.rows for item in kept], axis=1)), seeds, error, degrees)

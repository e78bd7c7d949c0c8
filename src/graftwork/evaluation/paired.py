"""Tests on paired differences: corrected resampled t-test, sign test, t intervals, Holm's correction.

Seeds of one suite share most of their training rows, so a plain t-test over seeds is far too sure. Nadeau and Bengio (2003,
"Inference for the Generalization Error", https://doi.org/10.1023/A:1024068626366) widen its variance by the share of rows that
the resampled splits exchange: ``(1 / k + n_test / n_train) * s**2`` in place of ``s**2 / k``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftwork.core.optional import require
from graftwork.core.records import Interval
from graftwork.interfaces.metric import Array, Floats

__all__ = ["PairedTest", "corrected_resampled_ttest", "holm", "paired_interval", "sign_test"]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Outcome of a test of "the mean difference is zero"."""

    mean: float
    """Mean difference."""
    standard_error: float
    statistic: float
    """``mean / standard_error``."""
    degrees: int
    """Degrees of freedom."""
    p_value: float
    """Two-sided; NaN if the test can say nothing (one difference only, or differences that do not vary)."""
    interval: Interval
    """Confidence interval of the mean difference."""

    @property
    def probability_positive(self) -> float:
        """Return how probable a positive true difference is, by the same t distribution with a flat prior; NaN if unknown."""
        # The two-sided p-value is both tails; half of it is the tail on the other side of zero.
        return 1.0 - self.p_value / 2 if self.mean > 0 else self.p_value / 2


def _known(differences: Array | Sequence[float]) -> Floats:
    values = np.asarray(differences, dtype=np.float64).reshape(-1)
    return values[~np.isnan(values)]


def corrected_resampled_ttest(
    differences: Array | Sequence[float], num_train: int, num_test: int, *, level: float = 0.95
) -> PairedTest:
    """Test whether the mean of differences over resampled splits is zero.

    Args:
        differences: One difference a seed (split); NaN entries are left out.
        num_train: Training rows of one split, at least 1.
        num_test: Rows that the splits exchange with the training rows. For splits that redraw the test rows these are the test
            rows; where the test rows are fixed and seeds redraw validation from the same rows as training, the validation rows.
            0 gives the plain t-test.
        level: Confidence of the interval, in (0, 1).

    Raises:
        ValueError: If a count is out of range.
    """
    if num_train < 1 or num_test < 0:
        raise ValueError(f"`num_train` must be at least 1 and `num_test` at least 0; got {num_train} and {num_test}.")
    values = _known(differences)
    count = len(values)
    nan = float("nan")
    mean = float(values.mean()) if count else nan
    # Differences that are equal up to rounding carry no information on the noise: better no answer than a sure one.
    spread = float(values.std(ddof=1)) if count > 1 else nan
    if not spread > 1e-12 * max(1.0, abs(mean)):
        # Two plans that score the same on every seed are no evidence of a difference; equal and not 0 proves nothing.
        p_value = 1.0 if count > 1 and mean == 0.0 else nan
        return PairedTest(mean, nan, nan, max(count - 1, 0), p_value, Interval(mean, nan, nan, level))
    student = require("scipy.stats", extra="train", purpose="The corrected resampled t-test").t
    # Nadeau and Bengio: 1 / k + n_test / n_train, since splits share most of their training rows.
    error = spread * float(np.sqrt(1 / count + num_test / num_train))
    statistic = mean / error
    margin = float(student.ppf((1 + level) / 2, count - 1)) * error
    p_value = float(2 * student.sf(abs(statistic), count - 1))
    return PairedTest(mean, error, statistic, count - 1, p_value, Interval(mean, mean - margin, mean + margin, level))


def paired_interval(differences: Array | Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of independent paired differences with Student's t interval; NaN bounds for fewer than two.

    Args:
        differences: One difference a seed; NaN entries are left out.
        level: Confidence, in (0, 1).
    """
    values = _known(differences)
    mean = float(values.mean()) if len(values) else float("nan")
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"), level)
    student = require("scipy.stats", extra="train", purpose="A t interval").t
    margin = float(student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - margin, mean + margin, level)


def sign_test(differences: Array | Sequence[float]) -> float:
    """Return the two-sided p-value that positive and negative differences are equally likely; zeros and NaN are left out.

    Example:
        >>> sign_test([1.0, 2.0, 0.5, 3.0, 1.5])
        0.0625
    """
    values = _known(differences)
    positive, decided = int((values > 0).sum()), int((values != 0).sum())
    if not decided:
        return 1.0
    binomial = require("scipy.stats", extra="train", purpose="The sign test").binomtest
    return float(binomial(positive, decided).pvalue)


def holm(p_values: Array | Sequence[float]) -> Floats:
    """Return p-values adjusted for their number by Holm's step-down method; NaN stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    # The smallest p-value is multiplied by m, the next by m - 1, down to 1.
    factors = len(order) - np.arange(len(order))
    # Running maximum: an adjusted p-value is never below that of a smaller one.
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0) if len(order) else 0.0
    return adjusted

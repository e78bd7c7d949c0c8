"""Cox's proportional hazards: the classical regression of times until an event, some of them censored.

Paper: Cox, "Regression Models and Life-Tables", Journal of the Royal Statistical Society B 34, 1972. Ties after Efron, "The
Efficiency of Cox's Likelihood Function for Censored Data", 1977. With ``R`` the rows still at risk at an event's time, the log
partial likelihood is the sum over events of ``x b - log sum over R of exp(x b)``; of ``d`` events at one time the ``l``-th (from 0)
takes ``l / d`` of all ``d`` out of the sum. It is concave, and Newton's steps with halving find its maximum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["fit_cox", "partial_likelihood"]

Floats = NDArray[np.float64]


def fit_cox(features: Floats, time: Floats, event: NDArray[np.bool_], *, penalty: float = 0.0, max_steps: int = 100) -> Floats:
    """Return the coefficients ``[F]``: ``features @ coefficients`` is the log of a row's hazard, up to a constant.

    Args:
        features: ``[N, F]``, about standardised, without a constant column.
        time: ``[N]``, at least 0.
        event: Whether the event came at that time, bool ``[N]``; False is censored.
        penalty: Strength of ``penalty / 2 * |b|^2``, beside the mean over rows of the log-likelihood; at least 0.
        max_steps: Most Newton steps.

    Raises:
        DataError: If there is no event, numbers are not finite, or the steps do not settle (columns that separate events, or that
            repeat each other, need a penalty).
    """
    if not np.asarray(event).any():
        raise DataError("Cox regression needs at least one event; every time is censored. Add rows that had one.")
    if not (np.isfinite(features).all() and np.isfinite(time).all()):
        raise DataError("Cox regression needs finite features and times. Fill in or drop the rows with missing cells.")
    beta = np.zeros(features.shape[1])
    value, slope, curve = _penalised(beta, features, time, event, penalty)
    for _ in range(max_steps):
        if np.abs(slope).max(initial=0.0) < 1e-9:
            return beta
        # Least squares: columns that repeat each other make the curvature singular.
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]
        for _ in range(30):
            found, new_slope, new_curve = _penalised(beta + step, features, time, event, penalty)
            # Close to the maximum a good step can lower the value by rounding.
            if found >= value - 1e-12:
                break
            step = step / 2.0
        beta, value, slope, curve = beta + step, found, new_slope, new_curve
    # Not as flat as wished for, but as far as rounding allows.
    if np.abs(slope).max() < 1e-5:
        return beta
    raise DataError(
        f"Cox regression did not settle in {max_steps} steps. Give it a penalty, or leave out columns that repeat others."
    )


def _penalised(
    beta: Floats, features: Floats, time: Floats, event: NDArray[np.bool_], penalty: float
) -> tuple[float, Floats, Floats]:
    value, slope, curve = partial_likelihood(beta, features, time, event)
    count = len(time)
    return (
        value / count - 0.5 * penalty * float(beta @ beta),
        slope / count - penalty * beta,
        curve / count + penalty * np.eye(len(beta)),
    )


def partial_likelihood(beta: Floats, features: Floats, time: Floats, event: NDArray[np.bool_]) -> tuple[float, Floats, Floats]:
    """Return the log partial likelihood, its gradient ``[F]`` and minus its second derivatives ``[F, F]``."""
    scores = features @ beta
    # A common factor cancels in all ratios, and is put back into the value below.
    risk = np.exp(scores - scores.max())
    moments = [risk, risk[:, None] * features, risk[:, None, None] * features[:, :, None] * features[:, None, :]]
    times, at = np.unique(time, return_inverse=True)
    order = np.argsort(at[event], kind="stable")
    place = at[event][order]  # of each event, which time it is; events of one time side by side
    number = np.bincount(place, minlength=len(times))
    # The number of each event among those of its time, l = 0 ... d - 1.
    rank = np.arange(len(place)) - (np.cumsum(number) - number)[place]
    part = rank / number[place]

    def left(moment: Floats) -> Floats:
        """Return the sum over rows at risk less the part of the tied events that is taken out, one per event."""
        shape = (len(times), *moment.shape[1:])
        everyone, tied = np.zeros(shape), np.zeros(shape)
        np.add.at(everyone, at, moment)
        np.add.at(tied, at[event], moment[event])
        # Sums from the end: at risk are the rows whose time is not over yet.
        remaining = np.cumsum(everyone[::-1], axis=0)[::-1]
        return remaining[place] - part.reshape(-1, *(1,) * (moment.ndim - 1)) * tied[place]

    total, first, second = (left(moment) for moment in moments)
    mean = first / total[:, None]
    value = scores[event].sum() - np.log(total).sum() - scores.max() * len(place)
    slope = features[event].sum(axis=0) - mean.sum(axis=0)
    # Second moment minus the square of the first, added over events: a sum of covariances.
    curve = (second / total[:, None, None]).sum(axis=0) - mean.T @ mean
    return float(value), slope, curve

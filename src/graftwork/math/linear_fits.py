"""Linear models fitted to the end in NumPy: multinomial logistic regression and ridge regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_multinomial", "fit_ridge"]

Floats = NDArray[np.float64]


def fit_multinomial(rows: Floats, labels: NDArray[np.int64], penalty: float, start: Floats, *, steps: int = 100) -> Floats:
    """Return weights and biases ``[C, D + 1]``, the bias last, with the lowest mean cross-entropy plus penalty.

    Args:
        rows: ``[n, D]``, best of like scale.
        labels: Classes ``[n]`` in ``range(C)``.
        penalty: Half of it times the squared weights is added; biases are free.
        start: Where to begin, ``[C, D + 1]``.
        steps: Most iterations of L-BFGS.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    count, picked = len(rows), np.arange(len(rows))

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(start.shape)
        logits = rows @ weights[:, :-1].T + weights[:, -1]
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        value = -float(logs[picked, labels].mean()) + 0.5 * penalty * float((weights[:, :-1] ** 2).sum())
        wrong = np.exp(logs)
        wrong[picked, labels] -= 1.0
        wrong /= count
        slope = np.concatenate([wrong.T @ rows + penalty * weights[:, :-1], wrong.sum(axis=0)[:, None]], axis=1)
        return value, slope.reshape(-1)

    found = minimize(loss, start.reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": steps, "gtol": 1e-5})
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


def fit_ridge(rows: Floats, values: Floats, penalties: Floats) -> list[tuple[Floats, Floats]]:
    """Return weights ``[K, D]`` and biases ``[K]`` of least squares for each penalty, from one decomposition.

    Args:
        rows: ``[n, D]``.
        values: ``[n, K]``.
        penalties: Each times the squared weights is added to the mean squared error; above 0.
    """
    mean, middle = rows.mean(axis=0), values.mean(axis=0)
    centred = rows - mean
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    along = left.T @ (values - middle)
    found = []
    for penalty in penalties:
        weight = (right.T @ (along * (sizes / (sizes**2 + penalty * len(rows)))[:, None])).T
        found.append((weight, middle - weight @ mean))
    return found

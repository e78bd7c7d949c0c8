"""The kernel of a Gaussian process, and its settings by maximum likelihood.

The covariance is a Matérn 5/2 kernel with a length for each group of columns, plus a linear kernel, plus noise (Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006). Weak normal priors on the logarithms keep settings in range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.distances import graph_square_distances, square_distances
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["Kernel", "Posterior", "fit_kernel"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROOT = float(np.sqrt(5.0))
_MOST_STEPS = 40
_BOUND = 9.0
"""Largest absolute logarithm of a setting."""


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Settings of a covariance, as logarithms: variance of the smooth part, of the linear part, of the noise, then lengths."""

    settings: Floats
    """``[3 + groups]``"""
    groups: Ints
    """Group of each column, ``[D]``."""

    @property
    def lengths(self) -> Floats:
        """Length of each column, ``[D]``."""
        return np.exp(self.settings[3:])[self.groups]

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(np.exp(self.settings[2]))

    def covariance(self, a: Floats, b: Floats) -> Floats:
        """Return the covariance without noise between rows ``[n, D]`` and ``[m, D]``."""
        smooth, linear = np.exp(self.settings[:2])
        far = _ROOT * np.sqrt(square_distances(a / self.lengths, b / self.lengths))
        return smooth * (1.0 + far + far * far / 3.0) * np.exp(-far) + linear / a.shape[1] * (a @ b.T)

    def graph_product(self, graph: GraphBuilder, a: str, b: Floats, weights: Floats) -> str:
        """Add ``covariance(a, b) @ weights`` to a graph."""
        smooth, linear = np.exp(self.settings[:2])
        scaled = graph.add("Div", a, self.lengths)
        square = graph_square_distances(graph, scaled, b / self.lengths)
        far = graph.add("Mul", graph.add("Sqrt", square), np.array(_ROOT))
        bent = graph.add("Add", graph.add("Add", far, np.array(1.0)), graph.add("Mul", square, np.array(5.0 / 3.0)))
        near = graph.add("Mul", bent, graph.add("Exp", graph.add("Neg", far)))
        straight = graph.add("MatMul", a, linear / b.shape[1] * (b.T @ weights))
        return graph.add("Add", graph.add("MatMul", near, smooth * weights), straight)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """A Gaussian process given its rows."""

    weights: Floats
    """``[n, T]``: predictions are the covariance with the rows times these."""
    left_out: Floats
    """``[n, T]``: prediction of each row from all others."""

    @classmethod
    def of(cls, kernel: Kernel, x: Floats, y: Floats) -> Posterior:
        """Condition on rows ``[n, D]`` with targets ``[n, T]`` of mean 0."""
        from scipy.linalg import cho_factor, cho_solve

        covariance = kernel.covariance(x, x)
        covariance[np.diag_indices(len(x))] += kernel.noise + 1e-8 * float(np.trace(covariance)) / len(x)
        inverse = cho_solve(cho_factor(covariance, lower=True), np.eye(len(x)))
        weights = inverse @ y
        return cls(weights, y - weights / np.diag(inverse)[:, None])


def _objective(settings: Floats, kernel: Kernel, x: Floats, y: Floats, start: Floats) -> tuple[float, Floats]:
    """Return the negative logarithm of likelihood and prior for each row and target, and its gradient."""
    from scipy.linalg import cho_factor, cho_solve

    tried = Kernel(settings, kernel.groups)
    (size, num_targets), num_columns = y.shape, x.shape[1]
    smooth, linear, noise = np.exp(settings[:3])
    scaled, straight = x / tried.lengths, x @ x.T / num_columns
    far = _ROOT * np.sqrt(square_distances(scaled, scaled))
    fall = np.exp(-far)
    near = (1.0 + far + far * far / 3.0) * fall
    covariance = smooth * near + linear * straight
    covariance[np.diag_indices(size)] += noise + 1e-8
    try:
        factor = cho_factor(covariance, lower=True)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(settings)
    inverse = cho_solve(factor, np.eye(size))
    weights = inverse @ y
    value = 0.5 * float((weights * y).sum()) + num_targets * float(np.log(np.diag(factor[0])).sum())
    outer = weights @ weights.T - num_targets * inverse
    gradient = np.empty_like(settings)
    gradient[:3] = smooth * (outer * near).sum(), linear * (outer * straight).sum(), noise * np.trace(outer)
    # By the logarithm of a length the kernel changes by (5/3)(1 + far) exp(-far) times the squared scaled distance along its
    # columns, and a sum of those over pairs needs no array of pairs for each column.
    slope = outer * (smooth * (5.0 / 3.0) * (1.0 + far) * fall)
    by_column = 2.0 * (np.square(scaled).T @ slope.sum(axis=1) - np.einsum("ad,ad->d", scaled, slope @ scaled))
    gradient[3:] = np.bincount(kernel.groups, weights=by_column, minlength=len(settings) - 3)
    spread = np.where(np.arange(len(settings)) < 3, 2.0, 1.0)
    prior = (settings - start) / spread
    total = size * num_targets
    return (value + 0.5 * float(prior @ prior)) / total, (-0.5 * gradient + prior / spread) / total


def fit_kernel(x: Floats, y: Floats, groups: Ints) -> tuple[Kernel, float]:
    """Return the settings that explain the rows best, and their negative log likelihood for each row and target (with priors, up
    to a constant).

    Args:
        x: Features with standard deviations of about 1, ``[n, D]``.
        y: Targets of mean 0 and variance of about 1, ``[n, T]``.
        groups: Columns of one group have one length, ``[D]``, numbered from 0.
    """
    from scipy.optimize import minimize

    length = 0.5 * np.log(x.shape[1]) + 0.3
    start = np.concatenate([[0.0, -2.0, -1.5], np.full(int(groups.max()) + 1, length)])
    kernel = Kernel(start, groups)
    found = minimize(
        _objective,
        start,
        args=(kernel, x, y, start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_BOUND, _BOUND)] * len(start),
        options={"maxiter": _MOST_STEPS},
    )
    return Kernel(np.asarray(found.x, dtype=np.float64), groups), float(found.fun)

"""Alpha-fair progress among gradients, by Newton's method.

Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", https://arxiv.org/abs/2402.15638, equation 4: the direction is ``w
@ J`` with ``G w = w^(-1/alpha)`` elementwise, ``w > 0`` and ``G = J J^T``. These are the stationary points of ``w G w / 2 -
sum(w^(1 - 1/alpha)) / (1 - 1/alpha)`` (a logarithm for ``alpha = 1``, where this is the Nash bargaining solution), which is
strictly convex: Newton's method with a step that is halved until the function falls reaches its only minimum.
"""

from __future__ import annotations

import numpy as np

from graftwork.math.unit_gramian import Floats, UnitGramian

__all__ = ["fair_weights"]


def fair_weights(gramian: Floats, alpha: float, *, ridge: float = 1e-7, tolerance: float = 1e-9, max_steps: int = 100) -> Floats:
    """Return the weights of the alpha-fair direction.

    With rows ``c`` times as long the direction is ``c^((1 - alpha) / (1 + alpha))`` times as long, exactly.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``, finite and positive semi-definite. Rows of any size.
        alpha: Above 0; 1 is proportional fairness, larger ones favour the task with the least progress.
        ridge: Added to the squared cosines of 1. Opposite gradients have no solution (their weights grow without end); with it
            they get one whose direction is almost zero. About the rounding error of gradients in float32.
        tolerance: Relative error of the equation, of each task, at which to stop.
        max_steps: The most Newton steps.

    Returns:
        ``[T]``, positive; 0 for rows that are zero, which gain nothing from any direction.

    Raises:
        ValueError: If a number is not finite or ``alpha`` is not above 0.

    Example:
        >>> fair_weights(np.array([[4.0, 0.0], [0.0, 0.25]]), 1.0).round(5).tolist()
        [0.5, 2.0]
    """
    if not alpha > 0:
        raise ValueError(f"`alpha` must be above 0; got {alpha!r}")
    unit = UnitGramian.of(gramian)
    if not len(unit.lengths):
        return np.zeros(len(unit.kept))
    cosines = unit.cosines.copy()
    cosines[np.diag_indices_from(cosines)] = 1.0 + ridge
    # In units of the lengths, v = L w, the equation reads C v = b v^(-1/alpha); a common factor of the lengths is taken out
    # first.
    common = float(np.exp(np.log(unit.lengths).mean()))
    lengths = unit.lengths / common
    factors = lengths ** (1.0 / alpha - 1.0)
    found = factors ** (alpha / (1.0 + alpha))  # the solution of rows at right angles
    for _ in range(max_steps):
        progress, wanted = found * (cosines @ found), factors * found ** (1.0 - 1.0 / alpha)
        # Hessian in units of the present weights, so the step is relative: found * (1 + step).
        hessian = cosines * np.outer(found, found) + np.diag(wanted / alpha)
        # Scaled to a unit diagonal, which keeps the system well conditioned where weights are far apart.
        sizes = np.sqrt(np.diagonal(hessian))
        step = np.linalg.solve(hessian / np.outer(sizes, sizes), (wanted - progress) / sizes) / sizes
        if np.abs(progress / wanted - 1.0).max() <= tolerance:
            break
        found = _walk(found, step, float((wanted - progress) @ step), cosines, factors, alpha)
    return unit.spread(found / lengths) * common ** (-2.0 * alpha / (1.0 + alpha))


def _walk(found: Floats, step: Floats, decrement: float, cosines: Floats, factors: Floats, alpha: float) -> Floats:
    """Return ``found * (1 + t step)`` for the first ``t`` that stays positive and lowers the function as much as its slope
    promises."""
    power = 1.0 - 1.0 / alpha

    def value(point: Floats) -> float:
        gains = np.log(point) if power == 0.0 else point**power / power
        return float(0.5 * point @ cosines @ point - factors @ gains)

    # The largest step that keeps all weights positive, with 10 % to spare; at most the full Newton step.
    start, rate = value(found), min(1.0, 0.9 / max(float(-step.min()), 1e-300))
    # 2^-60 is below the resolution of float64: no shorter step would change anything.
    for _ in range(60):
        # Armijo's rule. The last term allows for rounding where the function is flat, or the search would never end there.
        if value(found * (1.0 + rate * step)) <= start - 1e-4 * rate * decrement + 1e-14 * abs(start):
            break
        rate /= 2.0
    return found * (1.0 + rate * step)

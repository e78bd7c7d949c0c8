"""Inner products of gradients taken apart into lengths and cosines, and what aggregators compute from the two.

Everything here works on ``G = J J^T`` in float64. Lengths and cosines are kept apart, since rows may be of very different
length: whether rows are dependent is a question to their cosines, and a short row is none the less a direction of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "ScaleMode", "UnitGramian", "aligned_weights", "equal_angle_weights", "equal_projection_weights"]

Floats = NDArray[np.float64]
ScaleMode = Literal["min", "median", "rmse"]


@dataclass(frozen=True, slots=True)
class UnitGramian:
    """Lengths and cosines of the rows that are not zero."""

    kept: NDArray[np.bool_]
    """Which rows are not zero, ``[T]``."""
    lengths: Floats
    """Lengths of those rows, ``[K]``."""
    cosines: Floats
    """Their cosines, ``[K, K]``, exactly 1 on the diagonal."""

    @classmethod
    def of(cls, gramian: Floats) -> UnitGramian:
        """Take apart inner products ``[T, T]``.

        Raises:
            ValueError: If a number is not finite.
        """
        gramian = np.asarray(gramian, dtype=np.float64)
        if not np.isfinite(gramian).all():
            raise ValueError("the inner products of the gradients hold a number that is not finite")
        squares = np.diagonal(gramian)
        kept = squares > 0
        lengths = np.sqrt(squares[kept])
        # Divided twice: the product of two tiny lengths could underflow to 0.
        cosines = gramian[np.ix_(kept, kept)] / lengths[:, None] / lengths
        cosines[np.diag_indices_from(cosines)] = 1.0
        return cls(kept, lengths, cosines)

    def spread(self, weights: Floats) -> Floats:
        """Return weights ``[T]`` of all rows from those of the rows that are kept, 0 for the others."""
        found = np.zeros(len(self.kept))
        found[self.kept] = weights
        return found

    def eigen(self, resolution: float) -> tuple[Floats, Floats]:
        """Return eigenvalues ``[R]`` and vectors ``[K, R]`` of the cosines that are no rounding errors.

        Args:
            resolution: Relative rounding error of the gradients, ``torch.finfo(dtype).eps``. Eigenvalues below ``K`` times it,
                relative to the
                largest, are dropped: two rows then count as one direction at an angle below about ``sqrt(resolution)``.
        """
        values, vectors = np.linalg.eigh(self.cosines)
        large = values > len(values) * resolution * values.max(initial=0.0)
        return values[large], vectors[:, large]


def equal_projection_weights(gramian: Floats, resolution: float = 2.0**-52) -> Floats:
    """Return the weights, summing to 1, of the combination whose projections onto all rows are equal (IMTL-G).

    With ``G = L C L`` of lengths ``L`` and cosines ``C`` they are ``L^-1 C^+ 1`` over their sum. For independent rows this is
    the only solution; for dependent ones it is the limit of nearly dependent ones, where that exists. Rows that are zero get 0;
    so do all where no direction has equal projections (opposite rows), or the weights add up to 0.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``.
        resolution: See :meth:`UnitGramian.eigen`.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> equal_projection_weights(np.array([[1.0, 0.0], [0.0, 1e-8]])).round(6).tolist()
        [0.0001, 0.9999]
    """
    unit = UnitGramian.of(gramian)
    values, vectors = unit.eigen(resolution)
    # C^+ 1 by the eigenvectors that are kept.
    units = (vectors / values) @ vectors.sum(axis=0)
    shares = units / unit.lengths
    total = float(shares.sum())
    if _is_rounding(units, np.ones_like(units), resolution) or abs(total) <= resolution * np.abs(shares).sum():
        return np.zeros(len(unit.kept))
    return unit.spread(shares / total)


def equal_angle_weights(gramian: Floats, preference: Floats | None = None, resolution: float = 2.0**-52) -> Floats:
    """Return the weights of the direction at equal angles to all rows, as long as the sum of the rows' projections onto it
    (ConFIG).

    The direction is ``U^+ p`` of the unit rows ``U`` (Liu, Chu and Thuerey, https://arxiv.org/abs/2408.11104, equation 4),
    computed as ``U^T (U U^T)^+ p`` from the cosines.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``.
        preference: ``p``, wanted cosines ``[T]`` up to a common factor; None for equal ones.
        resolution: See :meth:`UnitGramian.eigen`.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> equal_angle_weights(np.array([[1.0, 0.0], [0.0, 9.0]])).round(6).tolist()
        [2.0, 0.666667]
    """
    unit = UnitGramian.of(gramian)
    values, vectors = unit.eigen(resolution)
    wanted = np.ones(len(unit.lengths)) if preference is None else np.asarray(preference, dtype=np.float64)[unit.kept]
    # Coefficients of unit rows: C^+ p.
    units = (vectors / values) @ (vectors.T @ wanted)
    progress = unit.cosines @ units
    square = float(units @ progress)
    if _is_rounding(units, wanted, resolution) or square <= 0:
        return np.zeros(len(unit.kept))
    # The direction u = U^T `units` has length sqrt(square). Times (sum of g_i . u) / square, it is as long as all projections.
    return unit.spread(float(unit.lengths @ progress) / square * units / unit.lengths)


def _is_rounding(units: Floats, wanted: Floats, resolution: float) -> bool:
    """Whether weights of unit rows are all but zero: no direction has the wanted projections (opposite rows), and the rest is
    rounding errors."""
    return bool(np.linalg.norm(units) <= 10.0 * resolution * np.linalg.norm(wanted))


def aligned_weights(
    gramian: Floats, preference: Floats | None = None, scale_mode: ScaleMode = "min", resolution: float = 2.0**-52
) -> Floats:
    """Return the weights of Aligned-MTL: all principal components of the rows are brought to one size, then the rows are added
    up.

    Senushkin et al., "Independent Component Alignment for Multi-Task Learning", https://arxiv.org/abs/2305.19000, algorithm 1:
    ``B p`` with ``B = s V S^-1 V^T`` from ``G = V S^2 V^T``, where ``s`` is the smallest singular value that is not zero. How
    many are not zero is decided by the cosines, so that a short row is not taken for a rounding error of a long one.

    Args:
        gramian: ``J @ J.T``, ``[T, T]``.
        preference: ``p``, weights of the aligned rows ``[T]``; None for their mean (LibMTL takes the sum: ones).
        scale_mode: Size ``s`` of the components: the smallest singular value (``min``, the paper's), the root of the median
            eigenvalue or of their mean (``rmse``).
        resolution: See :meth:`UnitGramian.eigen`.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> aligned_weights(np.array([[1.0, 0.0], [0.0, 1e-8]])).round(8).tolist()
        [5e-05, 0.5]
    """
    unit = UnitGramian.of(gramian)
    wanted = np.full(len(unit.kept), 1.0 / len(unit.kept)) if preference is None else np.asarray(preference, dtype=np.float64)
    # The rank comes from the cosines: see the docstring. The components themselves are those of the rows as they are.
    rank = len(unit.eigen(resolution)[0])
    if not rank:
        return wanted
    inner = np.asarray(gramian, dtype=np.float64)
    # Divided by the trace so that tiny gradients stay away from denormal numbers; only ratios of eigenvalues are used.
    values, vectors = np.linalg.eigh(inner / np.trace(inner))
    # Beyond a ratio of lengths of about 1e-8 even float64 cannot tell the smallest eigenvalue from zero.
    rank = min(rank, int((values > len(values) * 2.0**-52 * values[-1]).sum()))
    values, vectors = values[-rank:], vectors[:, -rank:]
    # (rank - 1) // 2 is the lower of two middle values, as torch.median gives it.
    scale = {"min": values[0], "median": np.sort(values)[(rank - 1) // 2], "rmse": values.mean()}[scale_mode]
    found: Floats = (vectors * np.sqrt(scale / values)) @ (vectors.T @ wanted)
    return found

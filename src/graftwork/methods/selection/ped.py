r"""PED: a transferability score of features whose classes were first pushed apart, as fine-tuning would.

Paper: Li et al., "Exploring Model Transferability through the Lens of Potential Energy", ICCV 2023,
https://arxiv.org/abs/2308.15074. Features are rescaled by mean and deviation of generic rows of the same model. A class ``i`` is a
ball around its mean :math:`m_i` with the radius :math:`r_i = (\sum_d \mathrm{var}_{i,d})^{1/2}`. Two classes whose balls overlap by
:math:`o_{ij} = \max(n_\sigma (r_i + r_j) - \lVert m_i - m_j \rVert, 0)` repel each other with the force :math:`c \, o_{ij}`: each moves
as a whole by :math:`\min(\frac12 t^2 c \, o_{ij}, o_{ij})` away from the other. Steps are made while a step moves more than half of what
the first one moved, at most six; the step that falls below is discarded. Any score can be taken of the moved rows.

Radii do not change, as classes move rigidly: means and variances of the classes are all that the motion depends on, so one pass finds
it and the following ones hand moved rows to the score.

Departure: the authors' LogME is a fixed-point iteration with small constants in its denominators; here it is the exact maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.scorer import ScoredRows, Scorer, SourceFacts
from graftwork.math.feature_moments import ClassSums
from graftwork.methods.selection.base import CheckedScorer, class_count
from graftwork.methods.selection.logme import LogME

__all__ = ["PotentialEnergyDescent", "Repulsion", "class_moves"]

Floats = NDArray[np.float64]
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Repulsion:
    """The numbers of the motion.

    Raises:
        ConfigError: If one is out of range.
    """

    sigmas: float = 0.6
    """Radii of a ball, above 0; the paper has 0.6 and 0.3."""
    time_step: float = 0.1
    """``t``, above 0."""
    constant: float = 1.0
    """``c``; below 0 classes attract each other, which is a control and no method."""
    exit_ratio: float = 0.5
    """Share of the first step's motion below which a step is discarded, in [0, 1]."""
    max_steps: int = 6
    """Most steps, at least 1."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be above 0 and finite; got {getattr(self, name)!r}"
            for name in ("sigmas", "time_step")
            if not 0 < getattr(self, name) < math.inf
        ]
        if not math.isfinite(self.constant) or self.constant == 0:
            problems.append(f"constant must be finite and not 0; got {self.constant!r}")
        if not 0 <= self.exit_ratio <= 1:
            problems.append(f"exit_ratio must be in [0, 1]; got {self.exit_ratio!r}")
        if self.max_steps < 1:
            problems.append(f"max_steps must be at least 1; got {self.max_steps!r}")
        if problems:
            raise ConfigError("The motion of classes cannot be simulated as asked.", problems)


class PotentialEnergyDescent(CheckedScorer):
    """Reads features and class indices, and gives what the base score says of the moved features.

    Mean and deviation of generic rows come through :meth:`bind`; without them those of the rows that are judged stand in, which makes
    sources comparable in scale but is not what the paper does.

    Args:
        base: The score, an object that has not seen any rows and reads features; None takes LogME.
        repulsion: The numbers of the motion.

    Raises:
        ConfigError: If the base score reads something else.
    """

    passes = 2

    def __init__(self, base: Scorer | None = None, repulsion: Repulsion | None = None) -> None:
        self.base = LogME() if base is None else base
        if self.base.reads != "features":
            raise ConfigError(f"PotentialEnergyDescent moves features; {type(self.base).__name__} reads {self.base.reads}.")
        self.repulsion = repulsion or Repulsion()
        # They depend on the score inside; all who ask, ask an object.
        self.passes = 1 + self.base.passes
        self.bounds = self.base.bounds  # type: ignore[misc]
        self._classes = ClassSums(squares=True)
        self._generic: tuple[Floats, Floats] | None = None
        self._moves: Floats | None = None
        self.steps = 0
        """Steps that were made, after the first pass."""

    def bind(self, facts: SourceFacts) -> None:
        """Take the moments of generic rows, and hand the facts on."""
        if facts.mean is not None and facts.deviation is not None:
            self._generic = np.asarray(facts.mean, dtype=np.float64), np.asarray(facts.deviation, dtype=np.float64)
        self.base.bind(facts)

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        labels = np.asarray(target, dtype=np.int64)
        if self._moves is None:
            self._classes.update(rows, labels)
        else:
            self.base.update(ScoredRows(target=labels, features=rows + self._moves[labels], rows=numbers))

    def finish_pass(self) -> None:
        """Find the motion after the first pass; hand the later ones on."""
        if self._moves is not None:
            self.base.finish_pass()
            self.passes = 1 + self.base.passes
            return
        sums, present = self._classes, self._classes.present
        assert sums.squares is not None
        self._moves = np.zeros_like(sums.sums)
        if present.sum() < 2:
            return
        counts = sums.counts[present, None]
        variances = np.maximum(sums.squares[present] / counts - sums.means() ** 2, 0.0)
        if self._generic is None:
            mean = sums.sums.sum(axis=0) / sums.counts.sum()
            deviation = np.sqrt(np.maximum(sums.squares.sum(axis=0) / sums.counts.sum() - mean**2, 0.0))
        else:
            mean, deviation = self._generic
        scale = np.maximum(deviation, _LEAST_DEVIATION)
        radii = np.sqrt((variances / scale**2).sum(axis=1))
        moved, self.steps = class_moves((sums.means() - mean) / scale, radii, self.repulsion)
        self._moves[present] = moved * scale

    def finish(self) -> float:
        """Return the base score of the moved rows.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._classes.counts)
        return self.base.finish()


def class_moves(means: Floats, radii: Floats, repulsion: Repulsion) -> tuple[Floats, int]:
    """Return how far each class moves in all, ``[C, D]``, and in how many steps.

    Args:
        means: Rescaled class means, ``[C, D]``.
        radii: ``[C]``.
        repulsion: The numbers of the motion.
    """
    from scipy.spatial.distance import cdist

    at, first, steps = means.copy(), 0.0, 0
    reach = repulsion.sigmas * (radii[:, None] + radii[None])
    rate = 0.5 * repulsion.time_step**2 * repulsion.constant
    while steps < repulsion.max_steps:
        apart = cdist(at, at)
        overlap = np.maximum(reach - apart, 0.0)
        # Of equal means no direction leads apart.
        pull = np.divide(np.minimum(rate * overlap, overlap), apart, out=np.zeros_like(apart), where=apart > 0)
        np.fill_diagonal(pull, 0.0)
        # Sum over j of pull_ij (m_i - m_j), without an array of all pairs in all dimensions.
        step = pull.sum(axis=1)[:, None] * at - pull @ at
        motion = float(np.abs(step).sum())
        first = first or motion
        if not motion > repulsion.exit_ratio * first:
            break
        at, steps = at + step, steps + 1
    return at - means, steps

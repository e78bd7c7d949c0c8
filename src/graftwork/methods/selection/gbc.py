"""GBC: how far classes, each taken as a Gaussian in feature space, are apart.

Paper: Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022,
https://arxiv.org/abs/2111.12780. Features are projected on their first principal components; a pair of classes overlaps by
``exp(-D_B)``, ``D_B`` being the Bhattacharyya distance; the score is minus the sum over ordered pairs of different classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.math.feature_moments import ClassSums, FeatureMoments
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["BhattacharyyaSeparability"]

Floats = NDArray[np.float64]
_LEAST_VARIANCE = 1e-6
"""Of the mean variance of a component over all rows: classes of one row, or of equal rows, have no variance of their own."""


class BhattacharyyaSeparability(CheckedScorer):
    """Reads class indices; at most 0. Two passes: principal components, then means and variances of the classes.

    Args:
        components: Principal components that are kept, at least 1.
        variance: ``"spherical"``: one variance a class; ``"diagonal"``: one a class and component.

    Raises:
        ConfigError: If an argument is out of range.
    """

    passes = 2
    bounds = (float("-inf"), 0.0)

    def __init__(self, *, components: int = 64, variance: Literal["spherical", "diagonal"] = "spherical") -> None:
        if components < 1 or variance not in ("spherical", "diagonal"):
            raise ConfigError(
                "BhattacharyyaSeparability: components is at least 1 and variance is 'spherical' or 'diagonal'; got "
                f"{components!r} and {variance!r}."
            )
        self.components, self.variance = components, variance
        self._moments = FeatureMoments()
        self._classes = ClassSums(squares=True)
        self._basis: Floats | None = None

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        if self._basis is None:
            self._moments.update(rows)
        else:
            self._classes.update((rows - self._moments.mean) @ self._basis, np.asarray(target, dtype=np.int64))

    def finish_pass(self) -> None:
        """Find the principal components."""
        if self._moments.count:
            self._basis = np.linalg.eigh(self._moments.covariance())[1][:, ::-1][:, : self.components]

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If no row has a label, or all are of one class.
        """
        class_count(self, self._classes.counts)
        counts, means = self._classes.counts[self._classes.present], self._classes.means()
        assert self._classes.squares is not None
        own = np.maximum(self._classes.squares[self._classes.present] / counts[:, None] - means**2, 0.0)
        whole = self._classes.squares.sum(axis=0) / counts.sum()  # the projected mean is 0
        least = max(_LEAST_VARIANCE * float(whole.mean()), np.finfo(np.float64).tiny)
        if self.variance == "spherical":
            own = own.mean(axis=1, keepdims=True).repeat(own.shape[1], axis=1)
        return -float(_overlaps(means, np.maximum(own, least)).sum())


def _overlaps(means: Floats, variances: Floats) -> Floats:
    """Return ``exp(-D_B)`` of all ordered pairs of different classes, for means and variances ``[C, D]``."""
    logs = np.log(variances).sum(axis=1)
    found = []
    # Class by class: all pairs at once would take C * C * D numbers.
    for index in range(len(means) - 1):
        both = 0.5 * (variances[index] + variances[index + 1 :])
        apart = 0.125 * ((means[index] - means[index + 1 :]) ** 2 / both).sum(axis=1)
        spread = 0.5 * (np.log(both).sum(axis=1) - 0.5 * (logs[index] + logs[index + 1 :]))
        found.append(2.0 * np.exp(-(apart + spread)))  # both orders of the pair
    return np.concatenate(found)

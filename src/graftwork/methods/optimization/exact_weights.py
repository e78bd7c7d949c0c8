"""Aggregators whose weights are computed here, in float64, from inner products: right for gradients of any size and of very
different size.

torchjd decides in the dtype of the gradients whether a component is zero (Aligned-MTL, IMTL-G), which in float32 drops rows
shorter than about 1/2000 of the longest; takes a pseudo-inverse of the gradients themselves in float32 (ConFIG), which gives
zero from about eight million parameters on; and stops before the solution where gradients are short (FairGrad). What is
computed: :mod:`graftwork.math.unit_gramian` and :mod:`graftwork.math.fair_share`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.math.fair_share import fair_weights
from graftwork.math.unit_gramian import Floats, ScaleMode, aligned_weights, equal_angle_weights, equal_projection_weights
from graftwork.methods.optimization.aggregator import WeightedAggregator

__all__ = ["IMTLG", "AlignedMTL", "ConFIG", "FairGrad"]


class _ExactWeights(WeightedAggregator):
    """Hands inner products over as a NumPy matrix.

    Args:
        pref_vector: One number per task, for methods that take such; then no task is left out.
    """

    def __init__(self, pref_vector: Sequence[float] | Tensor | None = None) -> None:
        self._preference: Floats | None = None
        if pref_vector is not None:
            self._preference = torch.as_tensor(pref_vector, dtype=torch.float64).detach().cpu().numpy()
            if self._preference.ndim != 1 or not np.isfinite(self._preference).all():
                raise ConfigError(f"`pref_vector` must hold one finite number per task; got {pref_vector!r}.")
            # Preferences belong to tasks by position, which leaving rows out would shift.
            self.skips_absent = False

    @property
    def resolution(self) -> float:
        """Relative rounding error of the gradients."""
        return float(torch.finfo(self.precision).eps)

    def weights(self, statistic: Tensor) -> Tensor:
        """Return the weights ``[T]`` from the inner products ``[T, T]``.

        Raises:
            ConfigError: If `pref_vector` has another number of entries than there are tasks.
        """
        if self._preference is not None and len(self._preference) != len(statistic):
            raise ConfigError(f"`pref_vector` has {len(self._preference)} entries for {len(statistic)} tasks; give one per task.")
        found = self.solve(statistic.detach().cpu().double().numpy())
        return torch.from_numpy(found).to(statistic)

    @abstractmethod
    def solve(self, gramian: Floats) -> Floats:
        """Return the weights ``[T]`` for inner products ``[T, T]``, finite, float64."""


class AlignedMTL(_ExactWeights):
    """Brings the principal components of the gradients to one size (Senushkin et al., 2023).

    The aligned gradients are averaged, as in torchjd and the paper's algorithm with equal preferences; LibMTL adds them up,
    which is ``pref_vector=[1, 1, ...]``.

    Args:
        pref_vector: Weights of the aligned gradients, one per task; None for their mean.
        scale_mode: The common size: of the smallest component (``min``), the ``median``, or ``rmse``, as in the paper's code.

    Raises:
        ConfigError: If a setting is out of its range.
    """

    def __init__(self, pref_vector: Sequence[float] | Tensor | None = None, scale_mode: ScaleMode = "min") -> None:
        super().__init__(pref_vector)
        if scale_mode not in get_args(ScaleMode):
            raise ConfigError(f"`scale_mode` must be one of {', '.join(get_args(ScaleMode))}; got {scale_mode!r}.")
        self.scale_mode: ScaleMode = scale_mode

    def solve(self, gramian: Floats) -> Floats:
        """Return the weights ``[T]``."""
        return aligned_weights(gramian, self._preference, self.scale_mode, self.resolution)


class IMTLG(_ExactWeights):
    """Equal projections onto all unit gradients, weights summing to 1 (Liu et al., 2021, the closed form).

    Where gradients are linearly dependent the paper's form is not defined. Here the limit of nearly dependent ones is taken;
    torchjd takes the pseudo-inverse of the inner products, which is another answer for parallel gradients of different length.
    """

    def __init__(self) -> None:
        super().__init__()

    def solve(self, gramian: Floats) -> Floats:
        """Return the weights ``[T]``."""
        return equal_projection_weights(gramian, self.resolution)


class ConFIG(_ExactWeights):
    """Equal angles to all unit gradients, as long as the sum of their projections (Liu et al., 2024).

    Args:
        pref_vector: Wanted cosines up to a common factor, one per task; None for equal ones.

    Raises:
        ConfigError: If `pref_vector` is no vector of finite numbers.
    """

    def solve(self, gramian: Floats) -> Floats:
        """Return the weights ``[T]``."""
        return equal_angle_weights(gramian, self._preference, self.resolution)


class FairGrad(_ExactWeights):
    """Alpha-fair progress of the tasks, solved to the end (Ban and Ji, 2024).

    Args:
        alpha: At least 0: 0 is the mean of the gradients, 1 proportional fairness (Nash-MTL without its greatest length), large
            ones are near the best worst progress. The paper's code takes 2 for most data sets, and so does the default.

    Raises:
        ConfigError: If ``alpha`` is negative or not finite.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise ConfigError(f"`alpha` of FairGrad must be at least 0 and finite; got {alpha!r}.")
        self.alpha = float(alpha)

    def solve(self, gramian: Floats) -> Floats:
        """Return the weights ``[T]``."""
        # The equation has w^(-1/alpha); its limit at 0 is equal weights.
        if self.alpha == 0:
            return np.full(len(gramian), 1.0 / len(gramian))
        return fair_weights(gramian, self.alpha)

"""Feature distillation: the student's features, through a learned map, are those of the teacher.

Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, https://arxiv.org/abs/1412.6550. There the hint trains the
lower half before the rest; here it is a term beside the tasks' losses. Each feature of the teacher is scaled to mean 0 and
variance 1, so that the same weight serves every teacher.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.taught import Array, TappedStudent, rows_of
from graftwork.nn.adversarial import pool_features

__all__ = ["FeatureDistillation", "feature_scale"]

_SCALE_ROWS = 4096
"""Rows from which mean and spread of a teacher's features are taken."""


def feature_scale(features: Array) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature, float32 ``[width]``; constant features get a deviation of 1.

    Args:
        features: ``[N, width]``; of many rows an even sample is read.
    """
    rows = np.linspace(0, len(features) - 1, min(len(features), _SCALE_ROWS)).astype(np.int64)
    sample = np.asarray(features[rows], dtype=np.float64)
    spread = sample.std(axis=0)
    # What varies by rounding alone would be blown up to noise.
    spread[spread <= 1e-6 * max(float(spread.max(initial=0.0)), 1e-6)] = 1.0
    return torch.from_numpy(sample.mean(axis=0)).float(), torch.from_numpy(spread).float()


class FeatureDistillation(TappedStudent):
    """The mean squared difference between a learned linear map of the student's features and the teacher's scaled ones.

    Takes the arguments of :class:`~graftwork.methods.distillation.taught.TappedStudent`. Maps and tokens are averaged over their
    places first. The maps are dropped after the training.
    """

    def made(self, binding: Binding) -> None:
        """Make a map for each teacher.

        Raises:
            ConfigError: If a teacher has no such features, or the student no such module.
        """
        width = pool_features(self.example_states(binding)).shape[1]
        arrays = [self.vectors(teacher) for teacher in self.teachers]
        self.module = _Hints([nn.Linear(width, array.shape[1]) for array in arrays], [feature_scale(array) for array in arrays])

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return the mean squared difference."""
        assert isinstance(self.module, _Hints), "bind comes first"
        target = self.module.scaled(number, rows_of(self.vectors(self.teachers[number]), inputs.batch))
        return (self.module.maps[number](student) - target).square().mean()


class _Hints(nn.Module):
    def __init__(self, maps: list[nn.Linear], scales: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)
        for number, (mean, spread) in enumerate(scales):
            # Buffers, so that they go to the device along; from the answers, so that they need not be saved.
            self.register_buffer(f"mean{number}", mean, persistent=False)
            self.register_buffer(f"spread{number}", spread, persistent=False)

    def scaled(self, number: int, features: Tensor) -> Tensor:
        mean, spread = self.get_buffer(f"mean{number}"), self.get_buffer(f"spread{number}")
        return (features - mean) / spread

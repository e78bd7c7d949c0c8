r"""DistillNearest and DistillWeighted: a small model learns from source models of other tasks, in their own classes.

Paper: Borup, Phoo and Hariharan, "Distilling from Similar Tasks for Transfer Learning on a Budget", ICCV 2023,
https://arxiv.org/abs/2304.12314. Beside the target's head the student has a head for each source, which predicts that source's
soft answers, on rows with and without labels:
:math:`(1 - \lambda) \, \mathrm{CE}(h(\phi(x)), y) + \lambda \sum_s \alpha_s \, \mathrm{CE}(p_s(x), g_s(\phi(x)))`. The weights
:math:`\alpha_s` are powers of the similarity of source and target, measured on the few labels
(:func:`graftwork.math.representation_similarity.parc`,
:func:`graftwork.math.representation_similarity.similarity_weights`). The heads of the sources are dropped after the training.

Here the term comes beside the task's loss with the factor ``weight``, which is :math:`\lambda / (1 - \lambda)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.taught import TappedStudent, rows_of
from graftwork.nn.adversarial import pool_features

__all__ = ["SourceClasses"]


class SourceClasses(TappedStudent):
    """Cross-entropy between the soft answers of sources in their own classes and a linear head for each on the student's
    features.

    Args:
        answers: See :class:`~graftwork.methods.distillation.taught.TappedStudent`; each holds ``classes``.
        weight: Likewise.
        teacher_weights: Likewise: the weight of each source. A source with the weight 0 has no head.
        tap: Likewise.
        temperature: Above 0; the sources' logits and those of the heads are divided by it.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        answers: Sequence[str] = (),
        weight: float = 4.0,
        teacher_weights: Sequence[float] | None = None,
        *,
        tap: str = "",
        temperature: float = 1.0,
    ) -> None:
        super().__init__(answers, weight, teacher_weights, tap=tap)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"temperature must be a number above 0; got {temperature!r}.")
        self.temperature = float(temperature)

    def made(self, binding: Binding) -> None:
        """Make a head for each source that counts.

        Raises:
            ConfigError: If a source has no classes.
        """
        width = pool_features(self.example_states(binding)).shape[1]
        heads: dict[str, nn.Module] = {}
        for number, (teacher, share) in enumerate(zip(self.teachers, self.shares, strict=True)):
            if teacher.classes is None:
                held = ", ".join(teacher.arrays())
                raise ConfigError(f"The source {teacher.name} has no classes of its own; its stored answers hold {held}.")
            if share > 0:
                heads[str(number)] = nn.Linear(width, teacher.classes.shape[1])
        self.module = nn.ModuleDict(heads)

    def term(self, number: int, student: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """Return the mean cross-entropy."""
        assert isinstance(self.module, nn.ModuleDict), "bind comes first"
        classes = self.teachers[number].classes
        assert classes is not None, "made has looked"
        wanted = rows_of(classes, inputs.batch)
        if self.temperature != 1.0:
            # Powers of probabilities over their sum: the softmax of the logits over the temperature.
            wanted = torch.softmax(wanted.clamp(min=1e-12).log() / self.temperature, dim=1)
        logits = self.module[str(number)](student) / self.temperature
        return F.cross_entropy(logits, wanted)

"""How far two predictions of the same rows are apart: the Kullback-Leibler divergence of what raw outputs stand for, for every
task kind.

Reduced as the task's loss is (see :mod:`graftwork.tasks.losses`), so that divergences of different tasks have comparable sizes:

=======================================  ==============================================================================
multiclass                               between categorical distributions, mean over rows and positions
binary, multilabel, ordinal              between Bernoulli distributions, mean over rows, logits and positions
regression, offsets                      between normal distributions of variance 1 around the standardised values: half the
                                         squared difference, mean over everything
normals                                  one minus the cosine: directions have no density here
=======================================  ==============================================================================
"""

from __future__ import annotations

from torch import Tensor

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

__all__ = ["output_divergence"]


def output_divergence(spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
    """Return the divergence ``KL(reference || output)``, a scalar of at least 0 (up to rounding); labels are not needed.

    Args:
        spec: The task.
        reference: Raw outputs, ``[B, num_outputs]`` or ``[B, num_outputs, *positions]``; the first argument of the divergence.
        output: Raw outputs of the same shape.
    """
    return task_kind(spec).divergence(spec, reference, output)

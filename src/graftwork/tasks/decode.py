"""From raw outputs of a head to what users read: probabilities and values in their own units. Exportable to ONNX."""

from __future__ import annotations

from torch import Tensor

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

__all__ = ["decode_output"]


def decode_output(spec: TaskSpec, output: Tensor) -> Tensor:
    """Return predictions as :meth:`graftwork.interfaces.learner.Learner.predict` describes them.

    Args:
        spec: The task.
        output: Raw outputs, ``[N, num_outputs]`` or ``[N, num_outputs, *positions]``.

    Returns:
        binary: probability of class 1, ``[N]``; multiclass and ordinal: ``[N, size]``, rows sum to one; multilabel: ``[N,
            size]``;
        regression: ``[N, size]`` in the user's units; over positions: ``[N, size, *positions]`` (normals have unit length;
            binary tasks
        are the probability of class 1, ``[N, 1, *positions]``; of a network trained with the balanced loss it is the probability
        among positions half of which are of class 1). Other kinds: see their modules.
    """
    return task_kind(spec).decode(spec, output)

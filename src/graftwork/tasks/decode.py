"""From raw outputs of a head to what users read: probabilities and values in their own units. Exportable to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec

__all__ = ["decode_output"]


def decode_output(spec: TaskSpec, output: Tensor) -> Tensor:
    """Return predictions as :meth:`graftwork.interfaces.learner.Learner.predict` describes them.

    Args:
        spec: The task.
        output: Raw outputs, ``[N, num_outputs]`` or ``[N, num_outputs, H, W]``.

    Returns:
        binary: probability of class 1, ``[N]``; multiclass and ordinal: ``[N, size]``, rows sum to one; multilabel: ``[N, size]``;
        regression: ``[N, size]`` in the user's units; dense kinds: ``[N, size, H, W]`` (normals have unit length; dense binary tasks are
        the probability of class 1, ``[N, 1, H, W]``; of a network trained with the balanced loss it is the probability among pixels half
        of which are of class 1).
    """
    if spec.kind == "binary":
        return torch.sigmoid(output).squeeze(1)
    if spec.kind in ("multiclass", "dense_multiclass"):
        return torch.softmax(output, dim=1)
    if spec.kind in ("multilabel", "dense_binary"):
        return torch.sigmoid(output)
    if spec.kind == "ordinal":
        return _class_probabilities(_running_minimum(torch.sigmoid(output)))
    if spec.kind == "dense_normals":
        return F.normalize(output, dim=1, eps=1e-6)
    if not spec.center:
        return output
    shape = (1, -1) + (1,) * (output.ndim - 2)
    scale = torch.tensor(spec.scale, dtype=output.dtype, device=output.device).view(shape)
    center = torch.tensor(spec.center, dtype=output.dtype, device=output.device).view(shape)
    return output * scale + center


def _running_minimum(above: Tensor) -> Tensor:
    """Make ``P(class > k)`` fall with ``k``: thresholds are learned one by one and may cross. (``cummin`` has no ONNX form.)"""
    shift = 1
    while shift < above.shape[1]:
        above = torch.cat([above[:, :shift], torch.minimum(above[:, shift:], above[:, :-shift])], dim=1)
        shift *= 2
    return above


def _class_probabilities(above: Tensor) -> Tensor:
    first = torch.ones_like(above[:, :1])
    return torch.cat([first, above], dim=1) - torch.cat([above, torch.zeros_like(first)], dim=1)

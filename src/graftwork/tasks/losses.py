"""Losses: one scalar per task, the mean over the entries that have a label. Each kind's module says which loss it has.

Missing labels (``-1`` or NaN) are masked inside the graph, so shapes never depend on the data and a batch without any label of a
task gives loss 0 with zero gradients. All losses start near 1, so that a plain sum is a fair default.
"""

from __future__ import annotations

from torch import Tensor

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.tensors import standardise

__all__ = ["label_count", "prior_loss", "standardise", "task_loss"]


def task_loss(spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False, complete: bool = False) -> Tensor:
    """Return the mean loss over all labelled entries.

    Args:
        spec: The task.
        output: Raw outputs of the head, ``[B, num_outputs]`` or ``[B, num_outputs, *positions]`` (see
            :class:`~graftwork.core.records.TaskSpec`).
        target: Targets as :class:`~graftwork.core.records.TaskSpec` lays out; regression in the user's units.
        robust: Smooth L1 in place of the squared error for regression, for targets with outliers.
        complete: The caller knows that no label is missing: the most common kinds then skip the mask.

    Returns:
        A scalar; 0 with zero gradients if nothing is labelled.
    """
    kind = task_kind(spec)
    return (kind.complete_loss if complete else kind.loss)(spec, output, target, robust=robust)


def label_count(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return over how many entries of ``target`` :func:`task_loss` takes its mean, an integer scalar."""
    return task_kind(spec).label_count(spec, target)


def prior_loss(spec: TaskSpec, target: Tensor) -> float:
    """Return the loss of the best constant prediction for ``target``, at least 1e-3: the scale on which losses of tasks compare.

    Example:
        >>> import torch
        >>> spec = TaskSpec(name="sign", kind="binary", size=1)
        >>> round(prior_loss(spec, torch.tensor([0, 1, 1, 0, -1])), 3)
        0.693
    """
    return max(float(task_kind(spec).prior_loss(spec, target).nan_to_num(1.0)), 1e-3)

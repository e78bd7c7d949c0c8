"""Losses: one scalar per task, the mean over the entries that have a label.

Missing labels (``-1`` or NaN) are masked inside the graph, so shapes never depend on the data and a batch without any label of a task
gives loss 0 with zero gradients. All losses start near 1, so that a plain sum is a fair default:

=================  ======================================================================================
binary             binary cross-entropy of the logit
multiclass         cross-entropy
ordinal            binary cross-entropy of ``P(class > k)`` for each threshold ``k``, mean over thresholds
                   (Niu et al., "Ordinal Regression with Multiple Output CNN", CVPR 2016)
multilabel         binary cross-entropy, mean over the known labels
regression         squared error of standardised values; ``robust`` takes smooth L1 with its knee at one standard deviation
dense_binary       binary cross-entropy in which the two classes of a picture weigh the same (Xie and Tu, "Holistically-Nested Edge
                   Detection", ICCV 2015), mean over pictures
dense_multiclass   cross-entropy, mean over the known pixels
dense_regression   smooth L1 of standardised values with its knee at 0.1: near the absolute error, yet differentiable twice
dense_normals      one minus the cosine between output and target
dense_offsets      as dense_regression
=================  ======================================================================================
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec

__all__ = ["label_count", "prior_loss", "standardise", "task_loss"]


def standardise(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return regression targets ``[B, size, ...]`` in units of ``spec.scale`` around ``spec.center``; NaN stays NaN."""
    if not spec.center:
        return target
    if len(spec.center) == 1:
        return (target - spec.center[0]) / spec.scale[0]
    shape = (1, -1) + (1,) * (target.ndim - 2)
    return (target - target.new_tensor(spec.center).view(shape)) / target.new_tensor(spec.scale).view(shape)


def task_loss(spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False, complete: bool = False) -> Tensor:
    """Return the mean loss over all labelled entries.

    Args:
        spec: The task.
        output: Raw outputs of the head, ``[B, num_outputs]`` or ``[B, num_outputs, H, W]`` (see :class:`~graftwork.core.records.TaskSpec`).
        target: Targets as :class:`~graftwork.core.records.TaskSpec` lays out; regression in the user's units.
        robust: Smooth L1 in place of the squared error for regression, for targets with outliers.
        complete: The caller knows that no label is missing: the most common kinds then skip the mask.

    Returns:
        A scalar; 0 with zero gradients if nothing is labelled.
    """
    if complete:
        quick = _complete_loss(spec, output, target, robust)
        if quick is not None:
            return quick
    if spec.kind in ("multiclass", "dense_multiclass"):
        total = F.cross_entropy(output, target, ignore_index=-1, reduction="sum")
        return total / (target >= 0).sum().clamp(min=1)
    if spec.kind == "dense_binary":
        return _balanced_loss(output.squeeze(1), target)
    if spec.kind in ("binary", "ordinal"):
        known = (target >= 0).unsqueeze(1)
        thresholds = torch.arange(output.shape[1], device=output.device)
        reached = (target.unsqueeze(1) > thresholds).to(output.dtype)
        return _masked_mean(F.binary_cross_entropy_with_logits(output, reached, reduction="none"), known)
    if spec.kind == "dense_normals":
        known = ~torch.isnan(target).any(dim=1)
        filled = torch.where(known.unsqueeze(1), target, torch.ones_like(target))
        return _masked_mean(1.0 - F.cosine_similarity(output, filled, dim=1, eps=1e-6), known)
    known = ~torch.isnan(target)
    filled = torch.where(known, target, torch.zeros_like(target))
    if spec.kind == "multilabel":
        return _masked_mean(F.binary_cross_entropy_with_logits(output, filled, reduction="none"), known)
    wanted = standardise(spec, filled)
    if spec.kind in ("dense_regression", "dense_offsets"):
        return _masked_mean(F.smooth_l1_loss(output, wanted, reduction="none", beta=0.1), known)
    if robust:
        return _masked_mean(F.smooth_l1_loss(output, wanted, reduction="none", beta=1.0), known)
    return _masked_mean((output - wanted).square(), known)


def label_count(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return over how many entries of ``target`` :func:`task_loss` takes its mean, an integer scalar."""
    if spec.kind == "dense_binary":
        return (target >= 0).flatten(1).any(dim=1).sum()
    if not target.is_floating_point():
        return (target >= 0).sum()
    known = ~torch.isnan(target)
    return (known.all(dim=1) if spec.kind == "dense_normals" else known).sum()


def prior_loss(spec: TaskSpec, target: Tensor) -> float:
    """Return the loss of the best constant prediction for ``target``, at least 1e-3: the scale on which losses of tasks compare.

    Example:
        >>> spec = TaskSpec(name="sign", kind="binary", size=1)
        >>> round(prior_loss(spec, torch.tensor([0, 1, 1, 0, -1])), 3)
        0.693
    """
    if spec.kind in ("multiclass", "dense_multiclass"):
        share = torch.bincount(target[target >= 0].flatten(), minlength=spec.size).double()
        value = _entropy(share / share.sum().clamp(min=1)).sum()
    elif spec.kind == "dense_binary":
        with_class = torch.stack([(target == index).flatten(1).any(dim=1).double().sum() for index in (0, 1)])
        rows = (target >= 0).flatten(1).any(dim=1).sum().clamp(min=1)
        value = _entropy(with_class / with_class.sum().clamp(min=1)).sum() * with_class.sum() / (2 * rows)
    elif spec.kind in ("binary", "ordinal"):
        known = target[target >= 0]
        share = (known.unsqueeze(1) > torch.arange(spec.num_outputs)).double().mean(dim=0)
        value = (_entropy(share) + _entropy(1.0 - share)).mean()
    elif spec.kind == "multilabel":
        share = torch.nanmean(target.double(), dim=0).nan_to_num(0.5)
        value = (_entropy(share) + _entropy(1.0 - share)).mean()
    elif spec.kind == "dense_normals":
        mean = torch.nanmean(target.double().movedim(1, 0).flatten(1), dim=1).nan_to_num(1.0)
        value = task_loss(spec, mean.view(1, 3, 1, 1).expand_as(target), target.double())
    else:
        wanted = standardise(spec, target.double())
        axes = tuple(axis for axis in range(wanted.ndim) if axis != 1)
        spread = wanted - torch.nanmean(wanted, dim=axes, keepdim=True)
        value = torch.nanmean(spread.square() if spec.kind == "regression" else spread.abs())
    return max(float(value.nan_to_num(1.0)), 1e-3)


def _complete_loss(spec: TaskSpec, output: Tensor, target: Tensor, robust: bool) -> Tensor | None:
    if spec.kind in ("multiclass", "dense_multiclass"):
        return F.cross_entropy(output, target)
    if spec.kind == "binary":
        return F.binary_cross_entropy_with_logits(output.squeeze(1), target.to(output.dtype))
    if spec.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(output, target)
    if spec.kind == "regression":
        wanted = standardise(spec, target)
        return F.smooth_l1_loss(output, wanted) if robust else F.mse_loss(output, wanted)
    return None


def _balanced_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Return the mean over pictures of half the mean loss of each class, from maps ``[B, H, W]``.

    Most pixels are no edge: unbalanced, the gradient would be theirs. A class that a picture lacks adds nothing.
    """
    values = F.binary_cross_entropy_with_logits(logit, target.clamp(min=0).to(logit.dtype), reduction="none").flatten(1)
    members = torch.stack([target == 0, target == 1], dim=1).flatten(2)
    sums = torch.where(members, values.unsqueeze(1), torch.zeros_like(values).unsqueeze(1)).sum(dim=2)
    rows = members.any(dim=2).any(dim=1).sum().clamp(min=1)
    return 0.5 * (sums / members.sum(dim=2).clamp(min=1)).sum() / rows


def _entropy(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share)


def _masked_mean(values: Tensor, known: Tensor) -> Tensor:
    known = known.expand_as(values)
    return torch.where(known, values, torch.zeros_like(values)).sum() / known.sum().clamp(min=1)

"""What losses, priors and divergences of several kinds share. Imported by kinds inside their methods: nothing else here needs
torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec
from graftwork.tasks.class_weights import weights_of

__all__ = [
    "bernoulli_divergence",
    "categorical_divergence",
    "class_weight_tensor",
    "entropy",
    "label_weights",
    "masked_mean",
    "normal_divergence",
    "prior_of_classes",
    "prior_of_flags",
    "row_weights",
    "share_above",
    "standardise",
    "threshold_loss",
    "unstandardise",
]


def masked_mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of ``values`` where ``known`` (broadcast); 0 with zero gradients if nowhere."""
    known = known.expand_as(values)
    # where, not a product: 0 times an infinite or missing value is NaN. clamp: no label gives 0, not 0 / 0.
    return torch.where(known, values, torch.zeros_like(values)).sum() / known.sum().clamp(min=1)


def standardise(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return values ``[B, size, ...]`` in units of ``spec.scale`` around ``spec.center``; NaN stays NaN."""
    if not spec.center:
        return target
    # Plain numbers cost no copy to the device, and one value is the common case.
    if len(spec.center) == 1:
        return (target - spec.center[0]) / spec.scale[0]
    shape = (1, -1) + (1,) * (target.ndim - 2)
    return (target - target.new_tensor(spec.center).view(shape)) / target.new_tensor(spec.scale).view(shape)


def unstandardise(spec: TaskSpec, output: Tensor) -> Tensor:
    """Undo :func:`standardise`. (Constants are built in a way that ONNX export keeps as constants.)"""
    if not spec.center:
        return output
    shape = (1, -1) + (1,) * (output.ndim - 2)
    scale = torch.tensor(spec.scale, dtype=output.dtype, device=output.device).view(shape)
    center = torch.tensor(spec.center, dtype=output.dtype, device=output.device).view(shape)
    return output * scale + center


def class_weight_tensor(spec: TaskSpec, like: Tensor) -> Tensor | None:
    """Return the weights of the classes ``[C]``, or without and with each label ``[L, 2]``, in the type of a tensor; None if all
    weigh alike."""
    found = weights_of(spec)
    return None if found is None else torch.as_tensor(found, dtype=like.dtype, device=like.device)


def row_weights(spec: TaskSpec, target: Tensor) -> Tensor | None:
    """Return the weight of each row by its class, ``[B]`` float32; None if all weigh alike. Of rows without a label it means nothing."""
    found = weights_of(spec)
    if found is None:
        return None
    return torch.as_tensor(found, dtype=torch.float32, device=target.device)[target.clamp(min=0)]


def label_weights(spec: TaskSpec, target: Tensor) -> Tensor | None:
    """Return the weight of each entry of ``[B, L]`` labels of 0 and 1; None if all weigh alike."""
    found = class_weight_tensor(spec, target)
    return None if found is None else torch.where(target > 0.5, found[:, 1], found[:, 0])


def share_above(spec: TaskSpec, target: Tensor, thresholds: Tensor) -> Tensor:
    """Return the share of labelled rows whose class is above each threshold, by the weights of their classes, ``[K]`` float64."""
    known = target[target >= 0]
    # known: [M, 1] against [K] thresholds gives [M, K].
    above = (known.unsqueeze(1) > thresholds).double()
    weight = row_weights(spec, known)
    return above.mean(dim=0) if weight is None else (weight.double()[:, None] * above).sum(dim=0) / weight.double().sum()


def threshold_loss(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of ``P(class > k)`` for each logit ``k`` of ``[B, K]``, mean over labelled rows and
    thresholds; rows may have weights ``[B]``, whose mean over training rows is 1."""
    known = (target >= 0).unsqueeze(1)
    thresholds = torch.arange(output.shape[1], device=output.device)
    # [B, 1] against [K] gives [B, K]. A missing label, -1, is above no threshold and is masked.
    reached = (target.unsqueeze(1) > thresholds).to(output.dtype)
    losses = F.binary_cross_entropy_with_logits(output, reached, reduction="none")
    return masked_mean(losses if weight is None else losses * weight.to(losses.dtype).unsqueeze(1), known)


def entropy(share: Tensor) -> Tensor:
    """Return ``-p log p`` of each entry; 0 at 0."""
    # xlogy is 0 at 0, where 0 * log 0 is NaN.
    return -torch.xlogy(share, share)


def prior_of_classes(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return the entropy of the class frequencies."""
    # float64: counts of pixels go beyond what float32 holds exactly.
    share = torch.bincount(target[target >= 0].flatten(), minlength=spec.size).double()
    weight = class_weight_tensor(spec, share)
    share = share if weight is None else share * weight
    return entropy(share / share.sum().clamp(min=1)).sum()


def prior_of_flags(share: Tensor) -> Tensor:
    """Return the mean entropy of yes-or-no questions that a ``share`` of the rows answers with yes."""
    return (entropy(share) + entropy(1.0 - share)).mean()


def categorical_divergence(reference: Tensor, output: Tensor) -> Tensor:
    """Return the divergence between categorical distributions over axis 1, mean over everything else."""
    # Logarithms of both, since a probability that underflows to 0 would make the ratio infinite.
    wanted, found = F.log_softmax(reference, dim=1), F.log_softmax(output, dim=1)
    return (wanted.exp() * (wanted - found)).sum(dim=1).mean()


def bernoulli_divergence(reference: Tensor, output: Tensor) -> Tensor:
    """Return the divergence between Bernoulli distributions of logits, mean over everything."""
    share = reference.sigmoid()
    yes = F.logsigmoid(reference) - F.logsigmoid(output)
    # log(1 - sigmoid(x)) = logsigmoid(-x), exact where 1 - sigmoid(x) rounds to 0.
    no = F.logsigmoid(-reference) - F.logsigmoid(-output)
    return (share * yes + (1.0 - share) * no).mean()


def normal_divergence(reference: Tensor, output: Tensor) -> Tensor:
    """Return the divergence between normal distributions of variance 1 around standardised values, mean over everything."""
    return 0.5 * (reference - output).square().mean()

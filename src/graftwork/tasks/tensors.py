"""What losses, priors and divergences of several kinds share. Imported by kinds inside their methods: nothing else here needs
torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec

__all__ = [
    "bernoulli_divergence",
    "categorical_divergence",
    "entropy",
    "masked_mean",
    "normal_divergence",
    "prior_of_classes",
    "prior_of_flags",
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


def threshold_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy of ``P(class > k)`` for each logit ``k`` of ``[B, K]``, mean over labelled rows and
    thresholds."""
    known = (target >= 0).unsqueeze(1)
    thresholds = torch.arange(output.shape[1], device=output.device)
    # [B, 1] against [K] gives [B, K]. A missing label, -1, is above no threshold and is masked.
    reached = (target.unsqueeze(1) > thresholds).to(output.dtype)
    return masked_mean(F.binary_cross_entropy_with_logits(output, reached, reduction="none"), known)


def entropy(share: Tensor) -> Tensor:
    """Return ``-p log p`` of each entry; 0 at 0."""
    # xlogy is 0 at 0, where 0 * log 0 is NaN.
    return -torch.xlogy(share, share)


def prior_of_classes(spec: TaskSpec, target: Tensor) -> Tensor:
    """Return the entropy of the class frequencies."""
    # float64: counts of pixels go beyond what float32 holds exactly.
    share = torch.bincount(target[target >= 0].flatten(), minlength=spec.size).double()
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

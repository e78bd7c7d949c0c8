r"""What distillation compares: softened outputs, features, attention maps, relations between rows.

- Outputs: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531.
- Attention maps: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, https://arxiv.org/abs/1612.03928.
- Relations: Park et al., "Relational Knowledge Distillation", CVPR 2019, https://arxiv.org/abs/1904.05068.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.tasks.divergence import output_divergence

__all__ = ["AttentionReduction", "angle_loss", "attention_loss", "attention_map", "distance_loss", "softened_divergence"]

AttentionReduction = Literal["mean", "norm"]
_COSINE_KINDS = frozenset({"embedding", "normals"})
"""Kinds whose divergence is a cosine: outputs over a temperature give the same one."""


def softened_divergence(spec: TaskSpec, reference: Tensor, output: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return :math:`T^2 \, \mathrm{KL}(p_{reference / T} \Vert p_{output / T})`, a scalar of at least 0.

    The factor keeps the gradient's size whatever the temperature. For values the temperature cancels out; of directions no
    temperature is taken.

    Args:
        spec: The task.
        reference: Raw outputs of the teacher, ``[B, num_outputs, ...]``.
        output: Raw outputs of the student, likewise.
        temperature: Above 0; higher ones show more of what the teacher thinks of the wrong classes.
    """
    if temperature == 1.0 or spec.kind in _COSINE_KINDS:
        return output_divergence(spec, reference, output)
    return temperature**2 * output_divergence(spec, reference / temperature, output / temperature)


def attention_map(states: Tensor) -> Tensor:
    """Return where a layer is active: the mean of squares over channels, ``[B, H, W]``.

    Args:
        states: Maps ``[B, C, H, W]``, or tokens ``[B, N, C]`` of a square grid, with or without a class token in front; tokens
            that form no square are taken as one row.

    Raises:
        ConfigError: If the states are vectors, which have no places.
    """
    if states.ndim == 4:
        return states.square().mean(dim=1)
    if states.ndim != 3:
        raise ConfigError(
            f"Attention maps need maps [B, C, H, W] or tokens [B, N, C]; the tapped module gives {list(states.shape)}. Tap a "
            f"module before the pooling."
        )
    energy = states.square().mean(dim=2)
    for extra in (0, 1):  # a class token in front is no place of the picture
        places = energy.shape[1] - extra
        side = math.isqrt(places)
        if side > 1 and side * side == places:
            return energy[:, extra:].unflatten(1, (side, side))
    return energy.unsqueeze(1)


def attention_loss(student: Tensor, teacher: Tensor, *, reduction: AttentionReduction = "mean") -> Tensor:
    """Return how far two attention maps are apart, each scaled to length 1, a scalar.

    Args:
        student: ``[B, H, W]``.
        teacher: ``[B, h, w]``; the larger map is averaged down to the size of the smaller one.
        reduction: ``mean`` takes the mean of squared differences over rows and places, as the authors' code does; ``norm`` the
            mean over rows of the length of the difference, as the paper writes.
    """
    size = (min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2]))
    one, two = (
        F.normalize(F.adaptive_avg_pool2d(part.unsqueeze(1), size).flatten(1), dim=1, eps=1e-8) for part in (student, teacher)
    )
    apart = one - two
    return apart.square().mean() if reduction == "mean" else apart.square().sum(dim=1).clamp(min=1e-12).sqrt().mean()


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss between the distances of all pairs of rows, each over its mean, a scalar; 0 for fewer than two rows.

    Args:
        student: Features ``[B, D]``.
        teacher: Features ``[B, d]``, of any width.
    """
    if len(student) < 2:
        return student.sum() * 0.0
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss between the cosines of the angles that all triples of rows form, a scalar.

    Args:
        student: Features ``[B, D]``; memory grows with the cube of ``B``.
        teacher: Features ``[B, d]``, of any width.
    """
    return F.smooth_l1_loss(_angles(student), _angles(teacher))


def _relative_distances(features: Tensor) -> Tensor:
    """Return ``[B, B]`` distances over their mean; the diagonal is 0."""
    squares = (features.unsqueeze(0) - features.unsqueeze(1)).square().sum(dim=2)
    # The root has no gradient at 0, where the diagonal and equal rows are.
    distances = torch.where(squares > 0, squares.clamp(min=1e-12).sqrt(), 0.0)
    count = len(features) * (len(features) - 1)
    return distances / (distances.sum() / count).clamp(min=1e-6)


def _angles(features: Tensor) -> Tensor:
    """Return ``[B, B, B]``: the cosine at each row between the directions to two others."""
    directions = F.normalize(features.unsqueeze(0) - features.unsqueeze(1), dim=2, eps=1e-8)
    return torch.bmm(directions, directions.mT)

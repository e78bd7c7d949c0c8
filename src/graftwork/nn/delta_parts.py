"""How the difference of one tensor is kept: dense, low rank, sparse, as factors of a canonical polyadic (CP) decomposition,
decomposed into a direction and a magnitude, or as a factor for each index of one dimension.

Low-rank differences are what LoRA learns (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685). CP factors have one matrix for
each dimension of a tensor and suit kernels of convolutions (Hitchcock, 1927; Kolda and Bader, "Tensor Decompositions and
Applications", SIAM Review 2009, section 3). Decomposed differences are what DoRA learns (Liu et al., ICML 2024,
https://arxiv.org/abs/2402.09353), factors along a dimension what IA3 does (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is
Better and Cheaper than In-Context Learning", NeurIPS 2022, https://arxiv.org/abs/2205.05638).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError

__all__ = [
    "CP",
    "Additive",
    "Decomposed",
    "Dense",
    "Dependent",
    "LowRank",
    "Part",
    "Rescaled",
    "Sparse",
    "change_of",
    "check_part",
    "describe_part",
    "read_part",
    "rescaled_filters",
    "sum_parts",
]


@dataclass(frozen=True, slots=True)
class Dense:
    """A difference that is stored as it is."""

    values: Tensor

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        return self.values.view(shape)

    def scaled(self, factor: float) -> Dense:
        """Return ``factor`` times the difference."""
        return Dense(self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"values": self.values}


@dataclass(frozen=True, slots=True)
class LowRank:
    """``factor * up @ down``, in the shape of the base tensor; of a convolution ``down`` holds whole kernels, or one column of
    them (convLoRA)."""

    down: Tensor
    """``[rank, in]``, or ``[rank, in, height, width]``, or ``[rank, in * width]`` with ``up`` as below."""
    up: Tensor
    """``[out, rank]``, or ``[out, rank, 1, 1]``, or ``[out * height, rank]``."""
    factor: float = 1.0

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        return (self.factor * (self.up.flatten(1) @ self.down.flatten(1))).view(shape)

    def scaled(self, factor: float) -> LowRank:
        """Return ``factor`` times the difference."""
        return replace(self, factor=self.factor * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"down": self.down, "up": self.up}


@dataclass(frozen=True, slots=True)
class CP:
    """``factor * sum_r a_r (x) b_r (x) ...``: one matrix for each dimension of the base tensor; its column ``r`` is ``a_r``."""

    factors: tuple[Tensor, ...]
    """``[size_i, rank]`` for each dimension ``i``."""
    factor: float = 1.0

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        first, *others = self.factors
        if not others:
            return (self.factor * first.sum(dim=-1)).view(shape)
        product = others[0]
        for matrix in others[1:]:
            # [..., 1, rank] * [size, rank]: one dimension more at each step, the rank stays last.
            product = product.unsqueeze(-2) * matrix
        # One matrix product in the end: the tensor of all dimensions and the rank is never built.
        return (self.factor * (first @ product.flatten(0, -2).T)).view(shape)

    def scaled(self, factor: float) -> CP:
        """Return ``factor`` times the difference."""
        return replace(self, factor=self.factor * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {f"factor{number}": matrix for number, matrix in enumerate(self.factors)}


@dataclass(frozen=True, slots=True)
class Sparse:
    """A difference that is zero but at some places of the flat tensor."""

    indices: Tensor
    """int64, increasing."""
    values: Tensor

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        flat = torch.zeros(shape.numel(), dtype=self.values.dtype, device=self.values.device)
        return flat.index_put_((self.indices,), self.values).view(shape)

    def scaled(self, factor: float) -> Sparse:
        """Return ``factor`` times the difference."""
        return replace(self, values=self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"indices": self.indices, "values": self.values}


Additive = Dense | LowRank | Sparse | CP
"""Differences that are the same whatever they are added to."""


@dataclass(frozen=True, slots=True)
class Decomposed:
    """``factor * (m * (W + D) / ||W + D|| - W)`` for a base tensor ``W``: a direction ``D`` and a magnitude ``m`` for each output
    filter, that is for each index of the first dimension; the norm runs over all other dimensions.

    It depends on the base tensor, so it has no dense form without one: see :meth:`.WeightDelta.change`.
    """

    direction: Additive
    """``D``."""
    magnitude: Tensor
    """``m``, ``[out]``."""
    factor: float = 1.0

    def expand(self, shape: torch.Size) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"A weight-decomposed difference (DoRA) of a tensor of shape {list(shape)} depends on the base tensor, so it can neither "
            "be given nor added without it. Make it dense first, on the model that it was tuned from: delta.dense(model)."
        )

    def against(self, base: Tensor) -> Tensor:
        """Return the difference from ``base``, in its shape."""
        return self.factor * (rescaled_filters(base + self.direction.expand(base.shape).to(base), self.magnitude.to(base)) - base)

    def scaled(self, factor: float) -> Decomposed:
        """Return ``factor`` times the difference."""
        return replace(self, factor=self.factor * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"magnitude": self.magnitude, **{f"direction.{name}": value for name, value in self.direction.tensors().items()}}


@dataclass(frozen=True, slots=True)
class Rescaled:
    """``factor * (s * W - W)`` for a base tensor ``W``: a learned scale ``s`` for each index of one of its dimensions.

    It depends on the base tensor, as :class:`Decomposed` does.
    """

    scale: Tensor
    """``s``, ``[size of the dimension]``."""
    axis: int = 0
    """The dimension: 0 for outputs of a layer (and its bias), 1 for inputs."""
    factor: float = 1.0

    def expand(self, shape: torch.Size) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"A rescaling (IA3) of a tensor of shape {list(shape)} depends on the base tensor, so it can neither be given nor added "
            "without it. Make it dense first, on the model that it was tuned from: delta.dense(model)."
        )

    def against(self, base: Tensor) -> Tensor:
        """Return the difference from ``base``, in its shape."""
        along = [-1 if axis == self.axis else 1 for axis in range(base.ndim)]
        return base * (self.factor * (self.scale.to(base) - 1.0)).view(along)

    def scaled(self, factor: float) -> Rescaled:
        """Return ``factor`` times the difference."""
        return replace(self, factor=self.factor * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"scale": self.scale}


Dependent = Decomposed | Rescaled
"""Differences that depend on the tensor that they are added to."""
Part = Additive | Dependent
_NAMES: dict[type[Part], str] = {
    Dense: "dense",
    LowRank: "low-rank",
    Sparse: "sparse",
    CP: "cp",
    Decomposed: "decomposed",
    Rescaled: "rescaled",
}


def rescaled_filters(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Return a weight whose output filters have the given norms, as DoRA does: no gradient flows through the old norms.

    Args:
        weight: ``[out, ...]``; a filter of zeros stays one.
        magnitude: ``[out]``.
    """
    norms = weight.detach().flatten(1).norm(dim=1)
    # The smallest normal number keeps 0 / 0 away from a filter of zeros.
    scale = magnitude / norms.clamp_min(torch.finfo(weight.dtype).tiny)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


def change_of(part: Part, base: Tensor) -> Tensor:
    """Return by how much a tensor changes, in its shape."""
    return part.against(base) if isinstance(part, Dependent) else part.expand(base.shape)


def sum_parts(one: Part, other: Part, shape: torch.Size) -> Part:
    """Return the sum of two differences of one tensor; where both have factors, so has the sum, with the sum of the ranks, and the sum of
    two rescalings of one dimension is one.

    Args:
        one: A difference.
        other: Another one.
        shape: Shape of the tensor.
    """
    if isinstance(one, LowRank) and isinstance(other, LowRank) and one.down.shape[1:] == other.down.shape[1:]:
        # [B1 B2] [A1; A2] = B1 A1 + B2 A2; the factors go into B, since the two may differ.
        return LowRank(torch.cat([one.down, other.down]), torch.cat([one.factor * one.up, other.factor * other.up], dim=1))
    if isinstance(one, CP) and isinstance(other, CP):
        pairs = list(zip(one.factors, other.factors, strict=True))
        first = torch.cat([one.factor * pairs[0][0], other.factor * pairs[0][1]], dim=1)
        return CP((first, *(torch.cat(pair, dim=1) for pair in pairs[1:])))
    if isinstance(one, Sparse) and isinstance(other, Sparse):
        places, where = torch.cat([one.indices, other.indices]).unique(return_inverse=True)
        values = torch.cat([one.values, other.values])
        return Sparse(places, torch.zeros(len(places), dtype=values.dtype, device=values.device).index_add_(0, where, values))
    if isinstance(one, Rescaled) and isinstance(other, Rescaled) and one.axis == other.axis:
        # f (s W - W) + g (t W - W) = (u W - W) with u = 1 + f (s - 1) + g (t - 1), whatever W is.
        return Rescaled(1.0 + one.factor * (one.scale - 1.0) + other.factor * (other.scale - 1.0), one.axis)
    return Dense(one.expand(shape) + other.expand(shape))


def check_part(name: str, part: Part, shape: torch.Size) -> None:
    """Refuse a difference that does not fit its tensor.

    Raises:
        ConfigError: Naming the tensor and its shape.
    """
    size = shape.numel()
    if isinstance(part, Decomposed):
        check_part(name, part.direction, shape)
        fits = len(shape) > 1 and part.magnitude.shape == shape[:1]
    elif isinstance(part, Rescaled):
        fits = 0 <= part.axis < len(shape) and part.scale.shape == shape[part.axis : part.axis + 1]
    elif isinstance(part, Dense):
        fits = part.values.numel() == size
    elif isinstance(part, LowRank):
        fits = len(part.down) == part.up.shape[1] and part.up.shape[0] * part.down[:1].numel() == size
    elif isinstance(part, CP):
        fits = [len(matrix) for matrix in part.factors] == list(shape) and len({m.shape[1:] for m in part.factors}) == 1
    else:
        fits = len(part.indices) == len(part.values) and (
            not len(part.indices) or 0 <= int(part.indices.min()) <= int(part.indices.max()) < size
        )
    if not fits:
        raise ConfigError(f"The delta of {name!r} does not fit a tensor of shape {list(shape)}.")


def describe_part(part: Part) -> dict[str, Any]:
    """Return what a file has to say of a part beside its tensors, as JSON values."""
    described: dict[str, Any] = {"kind": _NAMES[type(part)]}
    if isinstance(part, LowRank | CP | Decomposed | Rescaled):
        described["factor"] = part.factor
    if isinstance(part, CP):
        described["dimensions"] = len(part.factors)
    if isinstance(part, Rescaled):
        described["axis"] = part.axis
    if isinstance(part, Decomposed):
        described["direction"] = describe_part(part.direction)
    return described


def read_part(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Part:
    """Return the part that :func:`describe_part` described, from its tensors.

    Raises:
        KeyError: If a tensor is missing, or the kind is unknown.
    """
    kind = described["kind"]
    if kind == "low-rank":
        return LowRank(tensors["down"], tensors["up"], float(described["factor"]))
    if kind == "cp":
        factors = tuple(tensors[f"factor{number}"] for number in range(int(described["dimensions"])))
        return CP(factors, float(described["factor"]))
    if kind == "decomposed":
        own = {name.removeprefix("direction."): tensor for name, tensor in tensors.items() if name.startswith("direction.")}
        direction = read_part(described["direction"], own)
        if isinstance(direction, Dependent):
            raise KeyError("the direction of a decomposed difference depends on the base itself")
        return Decomposed(direction, tensors["magnitude"], float(described["factor"]))
    if kind == "rescaled":
        return Rescaled(tensors["scale"], int(described["axis"]), float(described["factor"]))
    if kind == "sparse":
        return Sparse(tensors["indices"], tensors["values"])
    if kind == "dense":
        return Dense(tensors["values"])
    raise KeyError(f"the kind of difference {kind!r} is unknown")

"""From a delta to its row-wise parts: which modules of the base it concerns, and what it does to its own rows there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.interfaces.delta import Delta
from graftwork.nn.delta_parts import Dependent
from graftwork.nn.foldable import WrappingLayer, plain_module, plain_state
from graftwork.nn.grafts import AddingGraft, Graft
from graftwork.nn.lora import LowRankConv2d
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft
from graftwork.nn.rowwise.layer import RowwisePart
from graftwork.nn.rowwise.parts import AddedGraft, LinearUpdate, MapUpdate, PlacedAround, ReplacedTensors
from graftwork.nn.weight_delta import CP, Decomposed, LowRank, Part, Rescaled, WeightDelta

__all__ = ["NotRowwiseError", "Place", "plain_at", "row_parts", "shared_tensors"]

Place = tuple[str, int]
"""Plain name of a module, and how many layers stand between it and this one: 0 for its own tensors, more for grafts around it."""


class NotRowwiseError(Exception):
    """A delta cannot be computed row by row; the message says why. It never leaves this package."""


@dataclass(frozen=True, slots=True)
class _Factors:
    """A change of a weight as ``scale * W + factor * up @ down``."""

    down: Tensor | None
    """In the base weight's shape but for the first dimension, which is the rank; None if there is no product."""
    up: Tensor | None
    """``[out, r]``."""
    factor: float = 1.0
    scale: Tensor | None = None
    """``[out]``; None for 1."""


def plain_at(model: nn.Module, name: str) -> nn.Module:
    """Return the module of this plain name, without what stands around it."""
    module = model.get_submodule(plain_module(model, name))
    while isinstance(module, WrappingLayer):
        module = module.base
    return module


def row_parts(delta: Delta, model: nn.Module, shared: frozenset[str]) -> dict[Place, RowwisePart]:
    """Return what a delta does at each place; tensors that its parts hold are shared where that is possible.

    Args:
        delta: It fits the model, which was checked.
        model: The base.
        shared: See :func:`shared_tensors`.

    Raises:
        NotRowwiseError: If it changes a tensor of the model as a whole, one that several modules share, or answers for the whole model.
    """
    weights = delta.weights if isinstance(delta, ModuleDelta) else delta
    assert isinstance(weights, WeightDelta), "DeltaSet takes no others"
    found: dict[Place, RowwisePart] = {}
    by_module: dict[str, dict[str, Part]] = {}
    for name, part in weights.parts.items():
        if name in shared:
            raise NotRowwiseError(f"it changes {name!r}, which several modules share")
        module, _, tensor = name.rpartition(".")
        if not module:
            raise NotRowwiseError(f"it changes {name!r}, which belongs to the model as a whole")
        by_module.setdefault(module, {})[tensor] = part
    for module, parts in by_module.items():
        found[module, 0] = _part_of(plain_at(model, module), parts)
    depths = Counter[str]()
    for graft in delta.grafts if isinstance(delta, ModuleDelta) else ():
        depths[graft.place] += 1
        found[graft.place, depths[graft.place]] = _graft_part(graft, model)
    return found


def _graft_part(placed: PlacedGraft, model: nn.Module) -> RowwisePart:
    cls: Any = placed.component.resolve(seam=nn.Module)
    if not placed.place or not issubclass(cls, Graft):
        raise NotRowwiseError(f"its {cls.__name__} answers for the whole model")
    graft = placed.build(model).eval()
    assert isinstance(graft, Graft)
    if isinstance(graft, AddingGraft):
        # What it is put around is called by the layer there.
        graft.base = nn.Identity()
        return AddedGraft(graft)
    return PlacedAround(graft)


@torch.no_grad()
def _part_of(module: nn.Module, parts: Mapping[str, Part]) -> RowwisePart:
    """Return the part of a module whose tensors change; the general form where there is none that is cheaper."""
    if set(parts) <= {"weight", "bias"}:
        if isinstance(module, nn.Linear):
            factors = _factors(parts.get("weight"), module.weight)
            if factors is not None or "weight" not in parts:
                shift = _shift(parts.get("bias"), module.bias, factors)
                return LinearUpdate(shift=shift, **_two_dimensional(factors))
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            factors = _factors(parts.get("weight"), module.weight)
            if factors is not None or "weight" not in parts:
                shift = _shift(parts.get("bias"), module.bias, factors)
                if factors is None or factors.down is None:
                    return MapUpdate(scale=None if factors is None else factors.scale, shift=shift)
                reduce = LowRankConv2d(module, 1, 1.0).down
                return MapUpdate(
                    reduce=reduce, down=factors.down, up=factors.up, factor=factors.factor, scale=factors.scale, shift=shift
                )
    state = module.state_dict(keep_vars=True)
    return ReplacedTensors({name: (state[name] + _change(part, state[name])).detach() for name, part in parts.items()})


def _two_dimensional(factors: _Factors | None) -> dict[str, Any]:
    if factors is None:
        return {}
    return {"down": factors.down, "up": factors.up, "factor": factors.factor, "scale": factors.scale}


def _factors(part: Part | None, weight: Tensor) -> _Factors | None:
    """Return the change of a weight as factors of a low rank; None if it has none."""
    if isinstance(part, Decomposed):
        inner = _factors(part.direction, weight)
        if inner is None or inner.up is None:
            return None
        # f * (m * (W + D) / n - W) + W = (1 - f + f * m / n) * W + f * m / n * D, filter by filter.
        moved = weight + part.direction.expand(weight.shape).to(weight)
        norms = moved.flatten(1).norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
        share = part.factor * part.magnitude.to(weight) / norms
        return _Factors(inner.down, share[:, None] * inner.up, inner.factor, 1.0 - part.factor + share)
    if isinstance(part, Rescaled):
        # Of inputs it has no low rank, and the outputs of the base cannot tell it.
        return _Factors(None, None, scale=1.0 + part.factor * (part.scale.to(weight) - 1.0)) if part.axis == 0 else None
    if isinstance(part, CP):
        first, *others = (matrix.to(weight) for matrix in part.factors)
        down = others[0].T
        for matrix in others[1:]:
            # [r, ..., 1] * [r, 1 ..., size]: one dimension more at each step.
            down = down.unsqueeze(-1) * matrix.T.view(matrix.shape[1], *[1] * (down.ndim - 1), matrix.shape[0])
        return _Factors(down.contiguous(), first, part.factor)
    if isinstance(part, LowRank) and part.up.shape[0] == weight.shape[0] and part.down[0].numel() == weight[0].numel():
        # Otherwise the product is reshaped in another way (convLoRA), which is no chain of two layers.
        rank = part.down.shape[0]
        return _Factors(part.down.to(weight).view(rank, *weight.shape[1:]), part.up.to(weight).flatten(1), part.factor)
    return None


def _shift(part: Part | None, bias: Tensor | None, factors: _Factors | None) -> Tensor | None:
    """Return what is added to the outputs; a bias is not scaled with the weight."""
    found = None if part is None or bias is None else _change(part, bias).detach()
    if factors is not None and factors.scale is not None and bias is not None:
        kept = ((1.0 - factors.scale) * bias).detach()
        found = kept if found is None else kept + found
    return found


def _change(part: Part, base: Tensor) -> Tensor:
    return (part.against(base) if isinstance(part, Dependent) else part.expand(base.shape)).to(base)


def shared_tensors(model: nn.Module) -> frozenset[str]:
    """Return the plain names of tensors that have several."""
    state = plain_state(model)
    counts = Counter(id(tensor) for tensor in state.values())
    return frozenset(name for name, tensor in state.items() if counts[id(tensor)] > 1)

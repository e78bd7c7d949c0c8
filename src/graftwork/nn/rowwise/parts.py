"""What deltas do to their own rows: low-rank updates and biases, adapters, other tensors of a layer, prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graftwork.nn.grafts import AddingGraft, Graft
from graftwork.nn.rowwise.layer import AddingPart, ReplacingPart
from graftwork.nn.updated_layer import call_with_weight

__all__ = ["AddedGraft", "LinearUpdate", "MapUpdate", "PlacedAround", "ReplacedTensors"]


class LinearUpdate(AddingPart):
    """``scale * y + factor * B(A(x)) + shift`` for what a linear layer ``y`` returned, ``[..., out]``; what is None is left out.

    One small product for each delta of a batch, on its neighbouring rows: stacking factors for one batched product was not faster
    on a CPU (ranks may differ here), and took memory and copies.

    Args:
        down: ``A``, ``[r, in]``.
        up: ``B``, ``[out, r]``.
        factor: On the product.
        scale: ``[out]``.
        shift: ``[out]``.
    """

    def __init__(
        self,
        *,
        down: Tensor | None = None,
        up: Tensor | None = None,
        factor: float = 1.0,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self.factor, self.scale, self.shift = factor, scale, shift
        # Views: the transposed matrices that addmm takes.
        self.down, self.up = (None if down is None else down.T), (None if up is None else up.T)

    def add_(self, inputs: Tensor, outputs: Tensor) -> None:
        """See :class:`.AddingPart`."""
        if self.scale is not None:
            outputs.mul_(self.scale)
        if self.down is not None and self.up is not None:
            hidden = torch.mm(inputs.reshape(-1, inputs.shape[-1]), self.down)
            if outputs.is_contiguous():
                outputs.view(-1, outputs.shape[-1]).addmm_(hidden, self.up, alpha=self.factor)
            else:
                outputs.add_(torch.mm(hidden, self.up).view(outputs.shape), alpha=self.factor)
        if self.shift is not None:
            outputs.add_(self.shift)


class MapUpdate(AddingPart):
    """The same for a convolution without groups, ``y`` being maps ``[B, out, height, width]``.

    Args:
        reduce: The convolution to ``r`` channels: of the base's kernel, stride and padding, without bias.
        down: Its weight, ``[r, in, k, k]``.
        up: ``[out, r]``.
        factor: On the product.
        scale: ``[out]``.
        shift: ``[out]``.
    """

    def __init__(
        self,
        *,
        reduce: nn.Module | None = None,
        down: Tensor | None = None,
        up: Tensor | None = None,
        factor: float = 1.0,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self.reduce, self.down, self.factor = reduce, down, factor
        self.up = None if up is None else up[:, :, None, None]
        self.scale, self.shift = (None if item is None else item[:, None, None] for item in (scale, shift))

    def add_(self, inputs: Tensor, outputs: Tensor) -> None:
        """See :class:`.AddingPart`."""
        if self.scale is not None:
            outputs.mul_(self.scale)
        if self.reduce is not None and self.down is not None and self.up is not None:
            hidden = call_with_weight(self.reduce, self.down, inputs)
            outputs.add_(nn.functional.conv2d(hidden, self.up), alpha=self.factor)
        if self.shift is not None:
            outputs.add_(self.shift)


class AddedGraft(AddingPart):
    """An adapter: a module that changes what the module before it returned.

    Args:
        graft: It; the base that it stands around is not called.
    """

    def __init__(self, graft: AddingGraft) -> None:
        self.graft = graft

    def add_(self, inputs: Tensor, outputs: Tensor) -> None:
        """See :class:`.AddingPart`."""
        outputs.copy_(self.graft.adapted(outputs))


class ReplacedTensors(ReplacingPart):
    """A module that computes with other tensors of its own: norms, running statistics, embeddings, dense weights.

    Args:
        tensors: Parameters and buffers by the name that they have in the module.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def answer(self, base: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """See :class:`.ReplacingPart`."""
        return functional_call(base, self.tensors, arguments, dict(keywords))


class PlacedAround(ReplacingPart):
    """A module that changes what a module of the base is given, such as prompts.

    Args:
        graft: It.
    """

    def __init__(self, graft: Graft) -> None:
        self.graft = graft

    def answer(self, base: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """See :class:`.ReplacingPart`."""
        # Here, not when it is loaded: other deltas may have put layers in between since.
        self.graft.base = base
        return self.graft(*arguments, **keywords)

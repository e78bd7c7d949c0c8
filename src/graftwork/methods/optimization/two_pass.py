"""What balancers with an ascent step have in common: climb, look at the losses there, step from where one was.

The second pass is handed to another balancer, so that a sharpness-aware step goes with equal weights, learned weights or any
aggregator of gradients, exact or of the representation.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer, Recompute, WeightBalancer
from graftwork.interfaces.binding import Binding
from graftwork.math.perturbation import shifted
from graftwork.methods.optimization.equal_weights import EqualWeights

__all__ = ["AscentBalancer", "ask_recompute"]


def ask_recompute(context: BackwardContext, who: str) -> Recompute:
    """Return the context's way to repeat the batch.

    Raises:
        ConfigError: If there is none.
    """
    if context.recompute is None:
        raise ConfigError(
            f"{who} looks at the losses of a batch twice, but this caller hands over no `recompute`. Train with graftwork's "
            "loop, or give BackwardContext a function that repeats the forward pass."
        )
    return context.recompute


class AscentBalancer(Balancer):
    """Moves all parameters by :meth:`ascend`, lets another balancer write the gradients of the losses there, and puts the
    parameters back.

    Objectives of the plan and auxiliary losses of the model keep their gradients at the unmoved weights.

    Args:
        balancer: What balances the tasks in the second pass: a balancer, or its component as in plans
            (``{"path": ..., "settings": ...}``); None takes the plain sum.
    """

    def __init__(self, balancer: Balancer | Mapping[str, Any] | str | None = None) -> None:
        built = EqualWeights() if balancer is None else balancer
        if isinstance(built, Mapping | str):
            built = Component.from_json(built).build(seam=Balancer)
        if not isinstance(built, Balancer):
            raise ConfigError(f"`balancer` must be a Balancer or name one as a component; got {balancer!r}.")
        self.inner: Balancer = built

    def bind(self, binding: Binding) -> None:
        """Bind the inner balancer."""
        self.inner.bind(binding)

    @property
    def needs_recompute(self) -> bool:
        """Always: the losses are looked at twice."""
        return True

    @abstractmethod
    def ascend(self, losses: Tensor, context: BackwardContext, parameters: Sequence[nn.Parameter]) -> list[Tensor] | None:
        """Return by how much each parameter moves, or None for no second pass.

        Args:
            losses: ``[T]``, whose graph may be used up unless None is returned.
            context: See :meth:`~graftwork.interfaces.balancer.Balancer.backward`.
            parameters: All parameters of the model that learn, shared ones first.
        """

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add the gradients at the moved weights to ``.grad``; returns the inner balancer's weights ``[T]`` if it has such.

        Raises:
            ConfigError: If the batch cannot be repeated.
        """
        recompute = ask_recompute(context, type(self).__name__)
        parameters = [*context.shared, *(parameter for own in context.owned for parameter in own)]
        # Without a gradient (no labels in the batch) there is no direction to climb.
        offsets = self.ascend(losses, context, parameters) if losses.requires_grad else None
        if offsets is None:
            return self.inner.backward(losses, context)
        # The inner balancer must run inside the block: it differentiates a graph built at the moved weights.
        with shifted(parameters, offsets):
            again = recompute()
            there = dataclasses.replace(context, representation=again.representation, outputs=again.outputs)
            return self.inner.backward(again.losses, there)

    def gradients(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the gradient of what the inner balancer minimises (the plain sum if that is no scalar); zeros where there is
        none."""
        total = self.inner.scalarize(losses)[0] if isinstance(self.inner, WeightBalancer) else losses.sum()
        found = torch.autograd.grad(total, list(parameters), allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, found, strict=True)
        ]

    def parameters(self) -> list[nn.Parameter]:
        """Return the inner balancer's learned parameters."""
        return self.inner.parameters()

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Pass the mean losses on."""
        self.inner.end_epoch(mean_losses)

    def reset(self) -> None:
        """Reset the inner balancer."""
        self.inner.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the inner balancer's memory."""
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.inner.load_state_dict(state["inner"])

"""A small model whose forward pass can be repeated with the same dropout masks, for tests of balancers that look twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from balancing_models import TinyModel
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec
from graftwork.interfaces.balancer import BackwardContext, Balancer, ForwardPass

__all__ = ["RepeatableModel"]


class RepeatableModel(TinyModel):
    """:class:`TinyModel` with dropout in the trunk and a whole context."""

    def forward_pass(self, mask_seed: int = 0, inputs: Tensor | None = None, absent: Sequence[int] = ()) -> ForwardPass:
        """Run the model; the dropout masks depend on ``mask_seed`` alone."""
        hidden = torch.tanh(self.trunk[0](self.inputs if inputs is None else inputs))
        keep = torch.rand(hidden.shape, generator=torch.Generator().manual_seed(mask_seed)) > 0.3
        representation = torch.tanh(self.trunk[2](hidden * keep))
        outputs = {str(index): head(representation) for index, head in enumerate(self.heads)}
        losses = [
            output.sum() * 0.0 if index in absent else F.mse_loss(output.squeeze(1), self.targets[index])
            for index, output in enumerate(outputs.values())
        ]
        return ForwardPass(outputs, torch.stack(losses), representation)

    def balance_twice(
        self, balancer: Balancer, mask_seed: int = 0, absent: Sequence[int] = ()
    ) -> tuple[list[Tensor], Tensor | None]:
        """Clear all gradients, let the balancer write new ones, and return copies of them with the weights."""
        self.zero_grad(set_to_none=True)
        return self.add_twice(balancer, mask_seed, absent)

    def add_twice(self, balancer: Balancer, mask_seed: int = 0, absent: Sequence[int] = ()) -> tuple[list[Tensor], Tensor | None]:
        """As :meth:`balance_twice`, on top of the gradients that are there."""
        first = self.forward_pass(mask_seed, absent=absent)

        def recompute(inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
            return self.forward_pass(mask_seed, None if inputs is None else inputs["numeric"], absent)

        context = BackwardContext(
            self.shared,
            [list(head.parameters()) for head in self.heads],
            first.representation,
            0,
            recompute,
            first.outputs,
            {"numeric": self.inputs},
            [TaskSpec(name=str(index), kind="regression", size=1) for index in range(len(self.heads))],
        )
        weights = balancer.backward(first.losses, context)
        return self.gradients(), weights

"""A small model with several heads for tests of balancers, and one training step on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftwork.interfaces.balancer import BackwardContext, Balancer

__all__ = ["TinyModel"]


class TinyModel(nn.Module):
    """Trunk 3 -> 5 -> 4 and one linear head per task, with fixed data of 6 rows."""

    def __init__(self, num_tasks: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(num_tasks))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        self.to(dtype)
        self.inputs = torch.randn(6, 3, generator=generator).to(dtype)
        self.targets = (torch.randn(num_tasks, 6, generator=generator) * torch.logspace(0, 1, num_tasks).unsqueeze(1)).to(dtype)

    @property
    def shared(self) -> list[nn.Parameter]:
        return list(self.trunk.parameters())

    def losses(self, absent: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Return stacked losses ``[T]`` and the representation."""
        losses, representation = self.loss_list(absent)
        return torch.stack(losses), representation

    def loss_list(self, absent: Sequence[int] = ()) -> tuple[list[Tensor], Tensor]:
        """Return the losses one by one; absent tasks lose 0 with zero gradient, as ``task_loss`` gives it."""
        representation = self.trunk(self.inputs)
        losses = []
        for index, head in enumerate(self.heads):
            output = head(representation).squeeze(1)
            losses.append(output.sum() * 0.0 if index in absent else (output - self.targets[index]).square().mean())
        return losses, representation

    def context(self, representation: Tensor | None, step: int = 0) -> BackwardContext:
        return BackwardContext(self.shared, [list(head.parameters()) for head in self.heads], representation, step)

    def balance(self, balancer: Balancer, absent: Sequence[int] = ()) -> tuple[list[Tensor], Tensor | None]:
        """Clear all gradients, run one backward pass, and return copies of them (zeros where there is none) with the weights."""
        self.zero_grad(set_to_none=True)
        losses, representation = self.losses(absent)
        weights = balancer.backward(losses, self.context(representation))
        return self.gradients(), weights

    def gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters()]

    def jacobian(self, absent: Sequence[int] = ()) -> Tensor:
        """Return the exact ``[T, P]`` matrix of the shared parameters, the slow and obvious way."""
        losses, _ = self.losses(absent)
        rows = [torch.autograd.grad(loss, self.shared, retain_graph=True) for loss in losses]
        return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])

    def representation_jacobian(self, absent: Sequence[int] = ()) -> Tensor:
        """Return the ``[T, B * D]`` matrix of the representation."""
        losses, representation = self.losses(absent)
        return torch.stack([torch.autograd.grad(loss, representation, retain_graph=True)[0].flatten() for loss in losses])

"""Sharpness meter: how high each task's loss gets within a ball around the weights, by random directions and by climbing.

The quantity that sharpness-aware training bounds (Foret et al., https://arxiv.org/abs/2010.01412, equation 1), measured from
below: the largest loss that was found. Random directions show what the bulk of the ball is like, climbing what its worst part is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.math.perturbation import ascent_offsets, global_norm, shifted

__all__ = ["BallLosses", "worst_case_losses"]


@dataclass(frozen=True, slots=True)
class BallLosses:
    """Losses per task, float64 on the CPU, shape ``[T]`` each."""

    center: Tensor
    """At the weights themselves."""
    random: Tensor
    """Largest at the ends of random directions."""
    climbed: Tensor
    """Largest that each task found by climbing its own loss."""

    @property
    def worst(self) -> Tensor:
        """Largest found anywhere in the ball."""
        return torch.maximum(self.center, torch.maximum(self.random, self.climbed))

    @property
    def rise(self) -> Tensor:
        """Worst loss less the loss at the weights: the sharpness."""
        return self.worst - self.center


def worst_case_losses(
    losses: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    rho: float,
    *,
    num_random: int = 8,
    climbs: int = 4,
    seed: int = 0,
) -> BallLosses:
    """Look for the largest loss of each task within Euclidean distance ``rho`` of the weights, which are the same afterwards,
    bit for bit.

    Args:
        losses: Returns the losses ``[T]`` at the present weights, on the same data every time and without randomness (evaluation
            mode).
        parameters: What moves, all together.
        rho: Radius, above 0; compare models of one architecture only.
        num_random: Number of random directions, the same for equal seeds and shapes.
        climbs: Steps of projected gradient ascent per task; the first one goes to the border.
        seed: Seed of the random directions.

    Raises:
        ConfigError: If ``rho`` is not above 0, or a number of directions is below 0.
    """
    if not rho > 0 or num_random < 0 or climbs < 0:
        raise ConfigError(
            f"`rho` must be above 0, `num_random` and `climbs` at least 0; got rho={rho!r}, "
            f"num_random={num_random}, climbs={climbs}."
        )
    moved = [parameter for parameter in parameters if parameter.requires_grad]
    with torch.no_grad():
        center = losses().double().cpu()
    random, climbed = center.clone(), center.clone()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_random):
        # Drawn on the CPU and moved, so that equal seeds give equal directions on every device.
        directions = [torch.randn(parameter.shape, generator=generator).to(parameter) for parameter in moved]
        with torch.no_grad(), shifted(moved, ascent_offsets(moved, directions, rho)):
            random = torch.maximum(random, losses().double().cpu())
    for task in range(len(center)):
        # With no climbs, or none that rises, the loss at the weights stays.
        climbed[task] = max(float(climbed[task]), _climb(losses, task, moved, rho, climbs))
    return BallLosses(center, random, climbed)


def _climb(losses: Callable[[], Tensor], task: int, parameters: Sequence[nn.Parameter], rho: float, climbs: int) -> float:
    """Return the largest loss of one task met on the way up; steps shrink, and each ends inside the ball."""
    highest = float("-inf")
    offsets = [torch.zeros_like(parameter) for parameter in parameters]
    for index in range(climbs):
        gradients = _gradients(losses, task, parameters, offsets)
        # rho, rho / 2, rho / 3 ...: the first reaches the border, later ones refine.
        steps = ascent_offsets(parameters, gradients, rho / (index + 1))
        offsets = [offset + step for offset, step in zip(offsets, steps, strict=True)]
        # Projection onto the ball; inside of it the factor is 1.
        shrink = (rho / global_norm(offsets).clamp(min=rho)).item()
        offsets = [offset * shrink for offset in offsets]
        with torch.no_grad(), shifted(parameters, offsets):
            highest = max(highest, losses()[task].item())
    return highest


def _gradients(
    losses: Callable[[], Tensor], task: int, parameters: Sequence[nn.Parameter], offsets: Sequence[Tensor]
) -> list[Tensor]:
    with shifted(parameters, offsets):
        found = torch.autograd.grad(losses()[task], list(parameters), allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]

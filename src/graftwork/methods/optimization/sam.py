"""SAM and ASAM: gradients taken at the worst point of a ball around the weights.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
https://arxiv.org/abs/2010.01412; Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
Neural Networks", ICML 2021, https://arxiv.org/abs/2102.11600. Baselines of F-MTL and TRAM, and plan components of their own.
With several tasks the ascent follows the scalar that the inner balancer minimises. Weight decay is no part of the ascent, and
ASAM scales biases and norms as all other weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.math.perturbation import ascent_offsets
from graftwork.methods.optimization.two_pass import AscentBalancer

__all__ = ["ASAM", "SAM"]


class SAM(AscentBalancer):
    """Ascent of fixed Euclidean length.

    Args:
        rho: Radius of the ball, at least 0; 0 is a plain step at twice the cost.
        balancer: See :class:`~graftwork.methods.optimization.two_pass.AscentBalancer`.

    Raises:
        ConfigError: If ``rho`` is negative.
    """

    adaptive = False

    def __init__(self, rho: float = 0.05, balancer: Balancer | Mapping[str, Any] | str | None = None) -> None:
        super().__init__(balancer)
        if not rho >= 0:
            raise ConfigError(f"`rho` must be at least 0; got {rho!r}.")
        self.rho, self.eta = float(rho), 0.0

    def ascend(self, losses: Tensor, context: BackwardContext, parameters: Sequence[nn.Parameter]) -> list[Tensor] | None:
        """Return the step of length ``rho`` along the gradient."""
        gradients = self.gradients(losses, parameters)
        return ascent_offsets(parameters, gradients, self.rho, adaptive=self.adaptive, eta=self.eta)


class ASAM(SAM):
    """Ascent of fixed length in units of the weights' own sizes.

    Args:
        rho: Radius, at least 0; ten times that of SAM is the papers' habit.
        eta: Added to the absolute weights, at least 0, so that zero weights move too.
        balancer: See :class:`~graftwork.methods.optimization.two_pass.AscentBalancer`.

    Raises:
        ConfigError: If a setting is negative.
    """

    adaptive = True

    def __init__(self, rho: float = 0.5, eta: float = 0.01, balancer: Balancer | Mapping[str, Any] | str | None = None) -> None:
        super().__init__(rho, balancer)
        if not eta >= 0:
            raise ConfigError(f"`eta` must be at least 0; got {eta!r}.")
        self.eta = float(eta)

r"""TRAM: a sharpness-aware step whose radius is how far the model's outputs have moved from a trusted reference.

Paper: Sherborne, Saphra, Dasigi and Peng, "TRAM: Bridging Trust Regions and Sharpness Aware Minimization", ICLR 2024,
https://arxiv.org/abs/2310.03646; code: https://github.com/tomsherborne/tram_optimizer. With weights :math:`\theta`, gradient
:math:`g` of the batch's loss and a divergence :math:`d` of outputs, taken without a gradient,

.. math:: \epsilon = d \cdot \theta^2 g \, / \, \lVert\, |\theta|\, g \,\rVert_2,

elementwise squares and one norm over all parameters (the geometry of ASAM). The optimiser gets the gradient of the same batch at
:math:`\theta + \epsilon`. The reference of :math:`d = KL(reference \,\Vert\, p_\theta)` is

- ``theta_prev``: the model before the last step (a trust region around each step);
- ``theta_0``: the model before the first step (around the pretrained model; its heads must fit the tasks);
- ``x``: the present model on inputs with Gaussian noise.

With the first two :math:`d` is 0 in the first step, which is then a plain one. Three forward and two backward passes a step, no
radius to tune.

What the paper leaves open, and what is done here: reference and model see the same dropout masks, so that equal weights are at
distance 0; the divergences of several tasks are summed (the outputs are predicted independently); kinds of tasks other than
classification are covered by
:mod:`graftwork.tasks.divergence`. The released code leaves :math:`g` out of the numerator and divides the divergence by the
number of outputs and once more by the batch: ``released = True`` does the same. TRAM-Fisher, the paper's variant in another
geometry, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.math.perturbation import ascent_offsets, global_norm, restored
from graftwork.methods.optimization.two_pass import AscentBalancer, ask_recompute
from graftwork.tasks.divergence import output_divergence

__all__ = ["TRAM", "TrustReference", "noised_inputs"]

TrustReference = Literal["theta_prev", "theta_0", "x"]


class TRAM(AscentBalancer):
    """Adaptive sharpness-aware steps with the divergence from a reference as radius.

    Args:
        reference: What outputs are compared with; see the module.
        sigma: Standard deviation of the noise for ``x``, above 0: in standard deviations of standardised columns, in full ranges
            of pictures.
        scale: Factor on the divergence, above 0; the official code has it for language models.
        released: Whether to do what the released code does, not what the paper says.
        balancer: See :class:`~graftwork.methods.optimization.two_pass.AscentBalancer`.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        reference: TrustReference = "theta_prev",
        sigma: float = 0.1,
        scale: float = 1.0,
        released: bool = False,
        balancer: Balancer | Mapping[str, Any] | str | None = None,
    ) -> None:
        super().__init__(balancer)
        if reference not in get_args(TrustReference):
            raise ConfigError(f"`reference` must be one of {', '.join(get_args(TrustReference))}; got {reference!r}.")
        for name, value in (("sigma", sigma), ("scale", scale)):
            if not value > 0:
                raise ConfigError(f"`{name}` must be above 0; got {value!r}.")
        self.reference, self.sigma, self.scale, self.released = reference, float(sigma), float(scale), bool(released)
        self._weights: list[Tensor] | None = None
        self._sum: Tensor | None = None
        self._count = 0

    @property
    def mean_radius(self) -> float:
        """Mean divergence over all steps so far, times ``scale``; 0 before the first."""
        return float(self._sum) / self._count if self._sum is not None else 0.0

    def ascend(self, losses: Tensor, context: BackwardContext, parameters: Sequence[nn.Parameter]) -> list[Tensor] | None:
        """Return the adaptive ascent step; None in a first step without reference.

        Raises:
            ConfigError: If the caller hands over no outputs, or ``x`` meets inputs without any number to add noise to.
        """
        self._count += 1
        # The distance is 0 here, so no ascent: None leaves the graph to the plain step.
        if self.reference != "x" and self._weights is None:
            self._remember(parameters)
            return None
        gradients = self.gradients(losses, parameters)  # first: the reference moves the weights, and the graph ends there
        radius = self._radius(context, parameters)
        self._remember(parameters)
        self._sum = radius.clone() if self._sum is None else self._sum + radius
        if self.released:
            return _released_offsets(parameters, gradients, radius)
        return ascent_offsets(parameters, gradients, radius, adaptive=True)

    @torch.no_grad()
    def _radius(self, context: BackwardContext, parameters: Sequence[nn.Parameter]) -> Tensor:
        recompute = ask_recompute(context, "TRAM")
        if context.outputs is None or context.inputs is None or not context.tasks:
            raise ConfigError(
                "TRAM compares outputs, but this caller hands over no tasks, inputs and outputs. Train with graftwork's loop."
            )
        if self._weights is None:
            # Same dropout masks as the batch's own pass: `recompute` replays the random state.
            trusted = recompute(noised_inputs(context.inputs, self.sigma)).outputs
        else:
            with restored(parameters):
                torch._foreach_copy_(list(parameters), self._weights)
                trusted = recompute().outputs
        radius = torch.zeros((), device=parameters[0].device)
        for task in context.tasks:
            output = context.outputs[task.name].detach()
            # Rounding can make a divergence of equal outputs slightly negative, and with it the ascent a descent.
            divergence = output_divergence(task, trusted[task.name], output).clamp(min=0.0)
            radius = radius + (divergence / (output.shape[1] * output.shape[0]) if self.released else divergence)
        return radius * self.scale

    @torch.no_grad()
    def _remember(self, parameters: Sequence[nn.Parameter]) -> None:
        """Keep the weights that the coming optimiser step leaves behind, or those before the first step."""
        if self.reference == "x" or (self.reference == "theta_0" and self._weights is not None):
            return
        if self._weights is None:
            self._weights = [parameter.detach().clone() for parameter in parameters]
        else:
            torch._foreach_copy_(self._weights, list(parameters))

    def reset(self) -> None:
        """Forget reference, mean radius, and what the inner balancer remembers."""
        super().reset()
        self._weights, self._sum, self._count = None, None, 0

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the reference weights, the sum of radii, and the inner balancer's memory."""
        state: dict[str, Any] = {**super().state_dict(), "count": self._count}
        if self._weights is not None:
            state["reference"] = [weight.clone() for weight in self._weights]
        if self._sum is not None:
            state["sum"] = self._sum.clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self._count = int(state["count"])
        self._weights = [weight.clone() for weight in state["reference"]] if "reference" in state else None
        self._sum = state["sum"].clone() if "sum" in state else None


def noised_inputs(inputs: Mapping[str, Tensor], sigma: float) -> dict[str, Tensor]:
    """Return inputs with Gaussian noise on what is continuous: floating-point inputs, and pictures (uint8, ``sigma`` of the full
    range).

    Codes and tokens (other integers) stay. Draws from torch's global generator.

    Raises:
        ConfigError: If nothing is continuous.
    """
    noised = dict(inputs)
    for name, values in inputs.items():
        if values.dtype == torch.uint8:
            # Floats from 0 to 255: backbones divide pictures by 255 whatever their type is.
            noised[name] = values.float() + 255.0 * sigma * torch.randn(values.shape, device=values.device)
        elif values.is_floating_point() and values.numel():
            noised[name] = values + sigma * torch.randn_like(values)
    if all(noised[name] is inputs[name] for name in inputs):
        raise ConfigError(
            f"There is nothing to add noise to: none of the inputs {', '.join(inputs)} is continuous. Take "
            f"the reference 'theta_prev' or 'theta_0'."
        )
    return noised


def _released_offsets(parameters: Sequence[Tensor], gradients: Sequence[Tensor], radius: Tensor) -> list[Tensor]:
    """Return ``d * theta^2 / || |theta| g ||``: as released, without the gradient's direction."""
    norm = global_norm(torch._foreach_mul([parameter.detach() for parameter in parameters], list(gradients)))
    squares = [parameter.detach().square() for parameter in parameters]
    torch._foreach_mul_(squares, radius / (norm + 1e-12))
    return squares

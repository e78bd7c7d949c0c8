r"""Annealed gradient noise: a Gaussian of shrinking variance added to every gradient.

Paper: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", https://arxiv.org/abs/1511.06807. At
step
:math:`t` (from 0) every gradient gets noise :math:`N(0, \sigma_t^2 I)` with :math:`\sigma_t^2 = \eta / (1 + t)^\gamma` and
:math:`\gamma = 0.55`; the *variance* decays so, not the standard deviation. The paper chooses :math:`\eta` among 0.01, 0.3 and
1.0; for plain SGD at a learning rate of 0.1 the useful range lies near the low end, since the noise of many steps adds up to a
random walk of the weights.

What the paper leaves open, and what is done here: noise comes after clipping, so that it is never clipped away (``after_clipping
= False`` gives the other order); parameters that have no gradient in a step (``None``, not zero) get no noise. With Adam the
noise enters the second moment
too and shrinks the steps: scale :math:`\eta` with the typical gradient. All noise of a step is one vector drawn at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.transform import GradientContext, GradientTransform

__all__ = ["GradientNoise"]


class GradientNoise(GradientTransform):
    """Adds annealed Gaussian noise, the same variance for every parameter.

    Args:
        eta: Variance at the first step, at least 0.
        gamma: Exponent of the decay, at least 0; 0 keeps the variance constant.
        after_clipping: Whether noise is added to clipped gradients (the default) or is clipped along.
        to: ``"all"`` learned parameters, ``"shared"`` for those of several tasks, ``"owned"`` for those of one task.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        eta: float = 0.01,
        gamma: float = 0.55,
        after_clipping: bool = True,
        to: Literal["all", "shared", "owned"] = "all",
    ) -> None:
        for name, value in (("eta", eta), ("gamma", gamma)):
            if not value >= 0:
                raise ConfigError(f"`{name}` must be at least 0; got {value!r}.")
        if to not in ("all", "shared", "owned"):
            raise ConfigError(f"`to` must be 'all', 'shared' or 'owned'; got {to!r}.")
        self.eta, self.gamma, self.to = float(eta), float(gamma), to
        self.after_clipping = bool(after_clipping)
        self._count = 0
        self._seed = 0
        self._generator: torch.Generator | None = None
        self._state: Tensor | None = None

    def bind(self, binding: Binding) -> None:
        """Take the seed of the noise and count from 0."""
        self._seed, self._count, self._generator, self._state = binding.seed, 0, None, None

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise of the next step."""
        return float((self.eta / (1.0 + self._count) ** self.gamma) ** 0.5)

    @torch.no_grad()
    def apply(self, context: GradientContext) -> None:
        """Add fresh noise and count one step."""
        gradients = [parameter.grad for parameter in self._chosen(context) if parameter.grad is not None]
        if gradients and self.eta > 0:
            first = gradients[0]
            generator = self._prepare(first.device)
            total = sum(gradient.numel() for gradient in gradients)
            noise = torch.randn(total, generator=generator, device=first.device)
            parts = noise.split([gradient.numel() for gradient in gradients])
            shaped = [part.view(gradient.shape).to(gradient) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_add_(gradients, shaped, alpha=self.sigma)
        self._count += 1

    def _chosen(self, context: GradientContext) -> Sequence[nn.Parameter]:
        if self.to == "all":
            return context.learned
        return context.shared if self.to == "shared" else [parameter for own in context.owned for parameter in own]

    def _prepare(self, device: torch.device) -> torch.Generator:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
            if self._state is not None:
                # A restored state waits here until the first step, because the device of the gradients is not known at load time.
                self._generator.set_state(self._state)
                self._state = None
        return self._generator

    def state_dict(self) -> dict[str, Any]:
        """Return the counter and the generator's state."""
        state: dict[str, Any] = {"count": self._count}
        random = self._generator.get_state() if self._generator is not None else self._state
        return state if random is None else {**state, "random": random.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the generator follows when the gradients' device is known."""
        self._count = int(state["count"])
        self._generator = None
        self._state = state["random"].cpu().clone() if "random" in state else None

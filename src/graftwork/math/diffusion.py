"""The Gaussian diffusion process: noise levels, noising, posteriors, and the samplers DDPM and DDIM. Pure functions on tensors.

Papers: Ho et al., "Denoising Diffusion Probabilistic Models", https://arxiv.org/abs/2006.11239 (DDPM); Song et al., "Denoising
Diffusion Implicit Models", https://arxiv.org/abs/2010.02502 (DDIM); Nichol and Dhariwal, "Improved Denoising Diffusion
Probabilistic Models", https://arxiv.org/abs/2102.09672 (cosine schedule).

Steps are counted from 0: at step ``t`` the picture is ``sqrt(kept[t]) x + sqrt(1 - kept[t]) noise``; step -1 stands for the
clean one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError

__all__ = ["NoiseSchedule", "PredictClean", "cosine_schedule", "linear_schedule", "sample", "sampling_steps"]

PredictClean = Callable[[Tensor, Tensor], Tensor]
"""From noisy pictures ``[B, ...]`` and steps int64 ``[B]`` to the clean ones. A network that predicts noise or velocity goes
through :meth:`NoiseSchedule.clean_from_noise`."""


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """How much of the signal is kept at each step; computed in float64.

    Raises:
        ConfigError: If the levels do not fall from below 1 to above 0.
    """

    kept: Tensor
    """Share of the signal's variance that is kept (``alpha bar`` of the papers), float64 ``[T]``, falling, in (0, 1)."""

    def __post_init__(self) -> None:
        kept = self.kept
        if kept.ndim != 1 or len(kept) < 1 or not bool((kept > 0).all() and (kept < 1).all() and (kept.diff() < 0).all()):
            raise ConfigError(f"A noise schedule is a falling row of numbers in (0, 1); got {kept!r}.")

    def __len__(self) -> int:
        return len(self.kept)

    def at(self, step: Tensor, like: Tensor) -> Tensor:
        """Return ``kept`` at steps int64 ``[B]`` (1 at step -1), shaped and typed to multiply ``like``, ``[B, ...]``."""
        # The 1 is appended at the end, where the index -1 finds it.
        values = torch.cat([self.kept, self.kept.new_ones(1)])[step.cpu()]
        return values.to(like.device).reshape(-1, *(1,) * (like.ndim - 1))

    def add_noise(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return the noisy picture at ``step``, of the type of ``clean``."""
        kept = self.at(step, clean)
        return (kept.sqrt() * clean + (1 - kept).sqrt() * noise).to(clean.dtype)

    def velocity(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return ``sqrt(kept) noise - sqrt(1 - kept) clean`` (Salimans and Ho, https://arxiv.org/abs/2202.00512).

        It is of equal size at all steps: nearly the noise at the first, nearly minus the clean picture at the last.
        """
        kept = self.at(step, clean)
        return (kept.sqrt() * noise - (1 - kept).sqrt() * clean).to(clean.dtype)

    def noise_from_velocity(self, noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
        """Return the noise in ``noisy`` that belongs to a velocity."""
        kept = self.at(step, noisy)
        return (kept.sqrt() * velocity + (1 - kept).sqrt() * noisy).to(noisy.dtype)

    def clean_from_noise(self, noisy: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return the clean picture that ``noise`` was added to."""
        kept = self.at(step, noisy)
        return ((noisy - (1 - kept).sqrt() * noise) / kept.sqrt()).to(noisy.dtype)

    def posterior(self, clean: Tensor, noisy: Tensor, step: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (broadcasting) of the picture at step ``to``, given the clean one and that at ``step``.

        Args:
            clean: ``[B, ...]``.
            noisy: The picture at ``step``.
            step: int64 ``[B]``.
            to: Earlier steps int64 ``[B]``, -1 for the clean picture.
        """
        kept, before = self.at(step, noisy), self.at(to, noisy)
        ratio = kept / before  # what a single leap from `to` to `step` keeps
        # Equation 7 of DDPM, for a leap over several steps: the one-step alpha becomes kept / before.
        of_clean = before.sqrt() * (1 - ratio) / (1 - kept)
        of_noisy = ratio.sqrt() * (1 - before) / (1 - kept)
        return (of_clean * clean + of_noisy * noisy).to(noisy.dtype), (1 - before) / (1 - kept) * (1 - ratio)

    def backward_step(
        self, noisy: Tensor, clean: Tensor, step: Tensor, to: Tensor, *, eta: float, fresh: Tensor | None
    ) -> Tensor:
        """Return the picture at the earlier step ``to``.

        Args:
            noisy: The picture at ``step``.
            clean: What the network takes for the clean picture.
            step: int64 ``[B]``.
            to: Earlier steps int64 ``[B]``, -1 for the clean picture.
            eta: 1 is DDPM (fresh noise of the posterior's variance), 0 the deterministic DDIM.
            fresh: Standard normal noise; may be None where ``eta`` is 0.
        """
        kept, before = self.at(step, noisy), self.at(to, noisy)
        # Derived from `clean`, which may have been clipped, so it differs from what the network predicted.
        noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
        variance = eta**2 * (1 - before) / (1 - kept) * (1 - kept / before)
        # Equation 12 of DDIM. The clamp is for rounding only: the variance is at most 1 - before.
        earlier = before.sqrt() * clean + (1 - before - variance).clamp(min=0).sqrt() * noise
        if eta > 0:
            assert fresh is not None, "eta above 0 takes fresh noise"
            earlier = earlier + variance.sqrt() * fresh
        return earlier.to(noisy.dtype)


def linear_schedule(num_steps: int = 1000, *, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """Return the schedule of DDPM: the variance that a step adds grows linearly.

    With fewer than 1000 steps each adds as much more, so that the end is as noisy.

    Raises:
        ConfigError: If ``num_steps`` is below 1 or the variances are not in (0, 1).
    """
    _check_steps(num_steps)
    scale = 1000 / num_steps
    # 0.999 as in the cosine schedule: with few steps the scaled variance would pass 1.
    added = torch.linspace(first * scale, min(last * scale, 0.999), num_steps, dtype=torch.float64)
    return NoiseSchedule((1 - added).cumprod(0))


def cosine_schedule(num_steps: int = 1000, *, offset: float = 0.008) -> NoiseSchedule:
    """Return the schedule whose kept share follows a squared cosine; no step adds more than 0.999.

    Raises:
        ConfigError: If ``num_steps`` is below 1.
    """
    _check_steps(num_steps)
    place = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    curve = ((place + offset) / (1 + offset) * math.pi / 2).cos() ** 2
    # The curve ends at 0 up to rounding: the last step would remove the signal entirely and later divisions by `kept` would fail.
    added = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    return NoiseSchedule((1 - added).cumprod(0))


def sampling_steps(num_steps: int, count: int) -> list[int]:
    """Return ``count`` steps out of ``num_steps``, evenly spread, the last step first.

    Example:
        >>> sampling_steps(1000, 4)
        [999, 749, 499, 249]
    """
    if not 1 <= count <= num_steps:
        raise ConfigError(f"A sampler takes 1 to {num_steps} steps of a schedule of {num_steps}; got {count}.")
    # Counted from the end: the noisiest step is always visited, since that is where the start comes from.
    return [round(num_steps - index * num_steps / count) - 1 for index in range(count)]


@torch.no_grad()
def sample(
    predict: PredictClean,
    start: Tensor,
    schedule: NoiseSchedule,
    *,
    num_steps: int | None = None,
    eta: float = 0.0,
    limit: float | None = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run the reverse chain.

    Args:
        predict: What the network takes for the clean picture.
        start: Standard normal noise, ``[B, ...]``.
        schedule: The schedule that the network was trained with.
        num_steps: Steps to take; None takes all.
        eta: 1 with all steps is DDPM; 0 is DDIM and draws no noise.
        limit: Clean pictures lie in ``[-limit, limit]``: estimates are clipped; None does not clip.
        generator: What fresh noise is drawn from (CPU).

    Returns:
        Clean pictures, like ``start``.

    Raises:
        ConfigError: If ``num_steps`` is out of range.
    """
    steps = sampling_steps(len(schedule), len(schedule) if num_steps is None else num_steps)
    states, batch = start, len(start)
    for now, then in zip(steps, [*steps[1:], -1]):
        step, to = (torch.full((batch,), value, device=start.device) for value in (now, then))
        clean = predict(states, step)
        if limit is not None:
            clean = clean.clamp(-limit, limit)
        fresh = None
        if eta > 0:
            # Drawn on the CPU, so that a seed gives the same noise on every device.
            fresh = torch.randn(states.shape, generator=generator, dtype=states.dtype).to(states.device)
        states = schedule.backward_step(states, clean, step, to, eta=eta, fresh=fresh)
    return states


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ConfigError(f"A noise schedule has at least 1 step; got {num_steps}.")

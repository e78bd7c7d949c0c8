"""The diffusion process against the closed form of a Gaussian, and against the schedulers of diffusers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.math.diffusion import NoiseSchedule, cosine_schedule, linear_schedule, sample, sampling_steps

MEAN, SPREAD = 0.7, 0.4
"""Of the Gaussian that is generated in these tests."""


def exact_noise(schedule: NoiseSchedule, noisy: Tensor, step: Tensor) -> Tensor:
    """Expected noise in a noisy picture whose clean one is from N(MEAN, SPREAD^2): what a perfect network predicts."""
    kept = schedule.at(step, noisy)
    total = kept * SPREAD**2 + 1 - kept
    return (1 - kept).sqrt() / total * (noisy - kept.sqrt() * MEAN)


def exact_clean(schedule: NoiseSchedule, noisy: Tensor, step: Tensor) -> Tensor:
    return schedule.clean_from_noise(noisy, exact_noise(schedule, noisy, step), step)


def steps_of(value: int, batch: int) -> Tensor:
    return torch.full((batch,), value)


def test_levels_fall_from_almost_everything_to_almost_nothing() -> None:
    for schedule in (linear_schedule(), linear_schedule(100), cosine_schedule(), cosine_schedule(50)):
        assert float(schedule.kept[0]) > 0.9
        assert float(schedule.kept[-1]) < 1e-3
        assert bool((schedule.kept.diff() < 0).all())
    assert float(linear_schedule().kept[0]) == pytest.approx(1 - 1e-4)
    assert float(linear_schedule().kept[1]) == pytest.approx((1 - 1e-4) * (1 - 1e-4 - (0.02 - 1e-4) / 999))
    squared = [math.cos((place / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for place in (0, 500)]
    assert float(cosine_schedule().kept[499]) == pytest.approx(squared[1] / squared[0], rel=1e-9)


def test_single_additions_of_noise_make_up_the_leap() -> None:
    schedule = linear_schedule(60)
    added = 1 - schedule.kept / torch.cat([torch.ones(1, dtype=torch.float64), schedule.kept[:-1]])
    mean, variance = 1.0, 0.0
    for step in range(60):
        mean, variance = mean * math.sqrt(1 - added[step]), variance * (1 - float(added[step])) + float(added[step])
        assert mean == pytest.approx(math.sqrt(schedule.kept[step]))
        assert variance == pytest.approx(1 - float(schedule.kept[step]))


@given(now=st.integers(1, 99), then=st.integers(-1, 98), clean=st.floats(-2, 2), noisy=st.floats(-3, 3))
def test_posterior_is_that_of_two_gaussians(now: int, then: int, clean: float, noisy: float) -> None:
    """The product of p(x_then | clean) and p(noisy | x_then), completed to a square by hand."""
    then = min(then, now - 1)
    schedule = cosine_schedule(100)
    kept = float(schedule.kept[now])
    before = float(schedule.kept[then]) if then >= 0 else 1.0
    mean, variance = schedule.posterior(
        torch.tensor([clean], dtype=torch.float64),
        torch.tensor([noisy], dtype=torch.float64),
        steps_of(now, 1),
        steps_of(then, 1),
    )
    if then < 0:
        assert float(mean) == pytest.approx(clean, abs=1e-9)
        assert float(variance) == 0.0
        return
    ratio = kept / before
    precision = 1 / (1 - before) + ratio / (1 - ratio)
    centre = (math.sqrt(before) * clean / (1 - before) + math.sqrt(ratio) * noisy / (1 - ratio)) / precision
    assert float(mean) == pytest.approx(centre, rel=1e-6, abs=1e-9)
    assert float(variance) == pytest.approx(1 / precision, rel=1e-6)


def test_a_step_of_ddpm_draws_from_the_posterior() -> None:
    schedule, fresh = linear_schedule(40), torch.tensor([0.3, -1.2], dtype=torch.float64)
    clean, noisy = torch.tensor([0.5, -0.1], dtype=torch.float64), torch.tensor([1.0, 0.2], dtype=torch.float64)
    for now, then in ((39, 38), (39, 12), (7, 6), (0, -1)):
        mean, variance = schedule.posterior(clean, noisy, steps_of(now, 2), steps_of(then, 2))
        made = schedule.backward_step(noisy, clean, steps_of(now, 2), steps_of(then, 2), eta=1.0, fresh=fresh)
        torch.testing.assert_close(made, mean + variance.sqrt() * fresh)


def test_noise_velocity_and_clean_picture_say_the_same() -> None:
    schedule, generator = cosine_schedule(30), torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    step = torch.tensor([0, 9, 20, 28])
    noisy = schedule.add_noise(clean, noise, step)
    torch.testing.assert_close(schedule.noise_from_velocity(noisy, schedule.velocity(clean, noise, step), step), noise)
    torch.testing.assert_close(schedule.clean_from_noise(noisy, noise, step), clean)


def test_ddim_follows_the_flow_of_a_gaussian() -> None:
    """With the exact noise the deterministic sampler is linear; its limit moves quantiles of the noise to those of the data."""
    schedule = linear_schedule(4000)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    made = sample(lambda noisy, step: exact_clean(schedule, noisy, step), start, schedule, limit=None)
    kept = float(schedule.kept[-1])
    wanted = MEAN + SPREAD * (start - math.sqrt(kept) * MEAN) / math.sqrt(kept * SPREAD**2 + 1 - kept)
    torch.testing.assert_close(made, wanted, atol=5e-3, rtol=0)


def test_ddpm_draws_the_gaussian() -> None:
    schedule, generator = linear_schedule(1000), torch.Generator().manual_seed(3)
    start = torch.randn(20_000, generator=generator, dtype=torch.float64)
    made = sample(
        lambda noisy, step: exact_clean(schedule, noisy, step), start, schedule, eta=1.0, limit=None, generator=generator
    )
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(made.std()) == pytest.approx(SPREAD, abs=0.01)


def test_the_posterior_mean_of_a_gaussian_is_the_clean_estimate() -> None:
    """E[clean | noisy], from the covariance of the two, is what the exact noise gives."""
    schedule, noisy = cosine_schedule(100), torch.linspace(-2, 2, 5, dtype=torch.float64)
    for now in (0, 30, 95):
        kept, step = float(schedule.kept[now]), steps_of(now, 5)
        gain = math.sqrt(kept) * SPREAD**2 / (kept * SPREAD**2 + 1 - kept)
        wanted = MEAN + gain * (noisy - math.sqrt(kept) * MEAN)
        torch.testing.assert_close(schedule.clean_from_noise(noisy, exact_noise(schedule, noisy, step), step), wanted)


def test_estimates_are_clipped() -> None:
    schedule = linear_schedule(50)
    made = sample(lambda noisy, step: 3.0 * torch.ones_like(noisy), torch.ones(2, 1), schedule, num_steps=5, limit=0.25)
    assert float((made - 0.25).abs().max()) < 1e-6


def test_steps_are_spread_evenly_and_end_at_the_last() -> None:
    assert sampling_steps(10, 10) == list(range(9, -1, -1))
    assert sampling_steps(1000, 3) == [999, 666, 332]
    for count in (0, 11):
        with pytest.raises(ConfigError, match="1 to 10 steps"):
            sampling_steps(10, count)


def test_wrong_schedules_are_refused() -> None:
    for kept in ([0.5, 0.6], [1.0, 0.5], [0.5, 0.0], [[0.5]]):
        with pytest.raises(ConfigError, match="falling row"):
            NoiseSchedule(torch.tensor(kept, dtype=torch.float64))
    with pytest.raises(ConfigError, match="at least 1 step"):
        cosine_schedule(0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("shape", ["linear", "squaredcos_cap_v2"])
def test_equals_the_schedulers_of_diffusers(eta: float, shape: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        1000, beta_schedule=shape, timestep_spacing="trailing", clip_sample=True, set_alpha_to_one=True
    )
    ours = linear_schedule() if shape == "linear" else cosine_schedule()
    np.testing.assert_allclose(theirs.alphas_cumprod.double().numpy(), ours.kept.numpy(), rtol=2e-4)
    theirs.set_timesteps(20)
    assert theirs.timesteps.tolist() == sampling_steps(1000, 20)
    clean, noise = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
    step = torch.tensor([3, 400, 700, 900])
    torch.testing.assert_close(ours.add_noise(clean, noise, step), theirs.add_noise(clean, noise, step), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.velocity(clean, noise, step), theirs.get_velocity(clean, noise, step), atol=1e-4, rtol=1e-4)

    def network(noisy: Tensor, step: Tensor) -> Tensor:
        return 0.9 * noisy + 0.1 * noisy.roll(1, dims=-1)

    states, generator = clean, torch.Generator().manual_seed(5)
    for value in theirs.timesteps:
        # DDIM with fresh noise uses the clipped estimate for the direction only if it is asked to.
        states = theirs.step(
            network(states, value), value, states, eta=eta, use_clipped_model_output=True, generator=generator
        ).prev_sample
    made = sample(
        lambda noisy, step: ours.clean_from_noise(noisy, network(noisy, step), step),
        clean,
        ours,
        num_steps=20,
        eta=eta,
        generator=torch.Generator().manual_seed(5),
    )
    torch.testing.assert_close(made, states, atol=2e-3, rtol=1e-3)


def test_equals_the_ancestral_steps_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs, ours = diffusers.DDPMScheduler(1000, beta_schedule="linear", variance_type="fixed_small"), linear_schedule()
    noisy, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    for now in (999, 500, 1):
        step, to = steps_of(now, 2), steps_of(now - 1, 2)
        clean = ours.clean_from_noise(noisy, noise, step).clamp(-1, 1)
        fresh = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(9))
        made = ours.backward_step(noisy, clean, step, to, eta=1.0, fresh=fresh)
        wanted = theirs.step(noise, now, noisy, generator=torch.Generator().manual_seed(9)).prev_sample
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)

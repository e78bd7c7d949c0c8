from __future__ import annotations

import math

import pytest
import torch
from bindings import binding
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.transform import GradientContext
from graftwork.methods.optimization.grad_noise import GradientNoise


def parameters(*sizes: int) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(size)) for size in sizes]
    for parameter in made:
        parameter.grad = torch.zeros_like(parameter)
    return made


def context(learned: list[nn.Parameter], shared: int = 1) -> GradientContext:
    return GradientContext(learned, learned[:shared], [learned[shared:]], 0)


def test_the_variance_and_not_the_deviation_decays_by_the_exponent() -> None:
    learned = parameters(200_000)
    noise = GradientNoise(eta=0.3, gamma=0.55)
    for step in range(40):
        learned[0].grad = torch.zeros(200_000)
        assert noise.sigma**2 == pytest.approx(0.3 / (1 + step) ** 0.55)
        noise.apply(context(learned))
        if step in (0, 39):
            assert learned[0].grad.var().item() == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.02)
            assert learned[0].grad.mean().item() == pytest.approx(0.0, abs=0.01)


def test_noise_is_added_afresh_to_every_parameter_at_one_size() -> None:
    learned = parameters(50_000, 50_000)
    learned[0].grad = torch.full((50_000,), 7.0)
    noise = GradientNoise(eta=1.0, gamma=0.0)
    noise.apply(context(learned))
    first = [torch.clone(parameter.grad) for parameter in learned if parameter.grad is not None]
    assert first[0].mean().item() == pytest.approx(7.0, abs=0.03)
    assert first[0].std().item() == pytest.approx(1.0, abs=0.02)
    assert first[1].std().item() == pytest.approx(1.0, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack(first))[0, 1])) < 0.02
    noise.apply(context(learned))
    assert learned[1].grad is not None
    second = learned[1].grad - first[1]
    assert abs(float(torch.corrcoef(torch.stack([first[1], second]))[0, 1])) < 0.02


@pytest.mark.parametrize("to", ["all", "shared", "owned"])
def test_chosen_parameters_only(to: str) -> None:
    learned = parameters(4, 4)
    GradientNoise(to=to).apply(context(learned))  # type: ignore[arg-type]
    touched = [bool(parameter.grad.any()) for parameter in learned if parameter.grad is not None]
    assert touched == [to != "owned", to != "shared"]


def test_no_gradient_no_noise_and_shapes_stay() -> None:
    absent, half = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    half.grad = torch.zeros_like(half)
    GradientNoise().apply(GradientContext([absent, half], [], [], 0))
    assert absent.grad is None
    assert half.grad.shape == (2, 3)
    assert half.grad.dtype == torch.float64
    assert bool(half.grad.all())


def test_seeds_decide_and_the_global_generator_is_left_alone() -> None:
    found = []
    for seed in (1, 1, 2):
        learned, noise = parameters(5), GradientNoise()
        noise.bind(binding(seed))
        torch.manual_seed(0)
        before = torch.get_rng_state()
        noise.apply(context(learned))
        assert torch.equal(torch.get_rng_state(), before)
        found.append(learned[0].grad)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])  # type: ignore[arg-type]
    assert not torch.equal(found[0], found[2])  # type: ignore[arg-type]


def test_saved_state_continues_with_the_same_noise() -> None:
    noise, learned = GradientNoise(eta=0.5), parameters(6)
    noise.bind(binding(3))
    for _ in range(4):
        noise.apply(context(learned))
    state = noise.state_dict()
    resumed = GradientNoise(eta=0.5)
    resumed.bind(binding(99))
    resumed.load_state_dict(state)
    assert resumed.state_dict()["count"] == 4
    assert torch.equal(resumed.state_dict()["random"], state["random"])
    copies = parameters(6)
    copies[0].grad = torch.clone(learned[0].grad)  # type: ignore[arg-type]
    for _ in range(2):
        noise.apply(context(learned))
        resumed.apply(context(copies))
    assert torch.equal(learned[0].grad, copies[0].grad)  # type: ignore[arg-type]
    fresh = GradientNoise()
    fresh.load_state_dict(GradientNoise().state_dict())
    assert fresh.state_dict() == {"count": 0}


def test_zero_eta_changes_nothing() -> None:
    learned = parameters(3)
    GradientNoise(eta=0.0).apply(context(learned))
    assert not bool(learned[0].grad.any())  # type: ignore[union-attr]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`eta` must be at least 0; got -1"):
        GradientNoise(eta=-1)
    with pytest.raises(ConfigError, match="`gamma` must be at least 0; got nan"):
        GradientNoise(gamma=math.nan)
    with pytest.raises(ConfigError, match="`to` must be 'all', 'shared' or 'owned'; got 'heads'"):
        GradientNoise(to="heads")  # type: ignore[arg-type]

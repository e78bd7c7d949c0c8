"""Routers: softmax before the choice, noise in training only, tasks."""

from __future__ import annotations

import math

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.nn.moe_router import Router


def with_logits(logits: list[list[float]], **settings: object) -> tuple[Router, torch.Tensor]:
    """A router whose logits are its tokens."""
    tokens = torch.tensor(logits)
    router = Router(tokens.shape[1], tokens.shape[1], **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        router.weights[0].copy_(torch.eye(tokens.shape[1]))
    return router, tokens


def test_softmax_comes_before_the_choice_and_gates_are_kept_as_they_are() -> None:
    router, tokens = with_logits([[math.log(1.0), math.log(5.0), math.log(2.0), math.log(2.0 - 1e-4)]])
    routing = router(tokens, 2)
    torch.testing.assert_close(routing.gates, torch.tensor([[0.5, 0.2]]), atol=1e-4, rtol=0)
    assert routing.experts.tolist() == [[1, 2]]
    assert routing.load.tolist() == [0, 1, 1, 0]
    torch.testing.assert_close(routing.dense_gates(), torch.tensor([[0.0, 0.5, 0.2, 0.0]]), atol=1e-4, rtol=0)


def test_options_renormalise_and_floor() -> None:
    router, tokens = with_logits([[math.log(1.0), math.log(5.0), math.log(4.0)]], renormalise=True, floor=0.1)
    torch.testing.assert_close(router(tokens, 2).gates, torch.tensor([[0.6, 0.5]]) / 1.1)
    torch.testing.assert_close(router(tokens, 2).probabilities, torch.tensor([[0.2, 0.6, 0.5]]))


@pytest.mark.parametrize("noise", [4.0, "learned"])
def test_noise_is_drawn_in_training_only(noise: float | str) -> None:
    router, tokens = with_logits([[0.0, 1.0, 2.0, 3.0]] * 50, noise=noise)
    router.eval()
    quiet = router(tokens, 2)
    assert torch.equal(quiet.probabilities, torch.softmax(tokens, dim=1))
    router.train()
    torch.manual_seed(0)
    loud = router(tokens, 2)
    assert not torch.allclose(loud.probabilities, quiet.probabilities)
    assert loud.load.requires_grad
    assert float(loud.load.sum().detach()) == pytest.approx(100, rel=0.15)


def test_fixed_noise_has_the_stated_strength() -> None:
    router, tokens = with_logits([[0.0, 0.0]] * 20_000, noise=3.0)
    torch.manual_seed(0)
    shares = router.train()(tokens, 1).probabilities
    gap = (shares[:, 0].log() - shares[:, 1].log()).std()
    assert float(gap.detach()) == pytest.approx(3.0 / 2 * math.sqrt(2.0), rel=0.03)


def test_the_expected_load_is_the_share_of_draws_that_choose_the_expert() -> None:
    """One token, many draws: the mean of the smooth load is the probability of being in the top k."""
    router, tokens = with_logits([[0.3, 0.0, -0.2]] * 40_000, noise=3.0)
    torch.manual_seed(0)
    routing = router.train()(tokens, 2)
    counted = torch.zeros(40_000, 3).scatter(1, routing.experts, 1.0).sum(dim=0)
    torch.testing.assert_close(routing.load.detach() / 40_000, counted / 40_000, atol=0.01, rtol=0)


def test_routers_per_task_are_own_and_a_conditioned_one_is_shared() -> None:
    own = Router(4, 3, num_tasks=2, noise="learned")
    assert len(own.own_parameters(0)) == 2
    assert not {id(p) for p in own.own_parameters(0)} & {id(p) for p in own.own_parameters(1)}
    conditioned = Router(4, 3, num_tasks=2, kind="conditioned", embedding=5)
    assert conditioned.own_parameters(0) == []
    tokens = torch.randn(6, 4)
    first, second = conditioned(tokens, 2, 0), conditioned(tokens, 2, 1)
    assert not torch.allclose(first.probabilities, second.probabilities)
    assert conditioned.embedding is not None
    joined = torch.cat([tokens, conditioned.embedding(torch.tensor([0.0, 1.0])).expand(6, 5)], dim=1)
    torch.testing.assert_close(second.probabilities, torch.softmax(joined @ conditioned.weights[0], dim=1))
    shared = Router(4, 3, num_tasks=2, kind="shared")
    assert torch.equal(shared(tokens, 2, 0).probabilities, shared(tokens, 2, 1).probabilities)


def test_starts() -> None:
    torch.manual_seed(0)
    drawn = Router(200, 16).weights[0]
    assert float(drawn.abs().max()) <= 0.25
    assert float(drawn.abs().max()) > 0.24
    assert not Router(20, 16, zero_start=True).weights[0].any()


def test_keeping_a_task_keeps_its_decisions() -> None:
    router = Router(4, 3, num_tasks=3)
    tokens = torch.randn(5, 4)
    before = router(tokens, 2, 2).probabilities
    router.keep_task(2)
    assert torch.equal(router(tokens, 2, 0).probabilities, before)
    assert router.num_tasks == 1


def test_errors() -> None:
    with pytest.raises(ConfigError, match="at least one expert and one task; got 0 and 1"):
        Router(4, 0)
    with pytest.raises(ConfigError, match="'per_task', 'conditioned' or 'shared'; got 'own'"):
        Router(4, 2, kind="own")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`noise` must be at least 0, or 'learned'; got -1"):
        Router(4, 2, noise=-1)
    with pytest.raises(ConfigError, match="per task"):
        Router(4, 2, kind="shared").add_task(2)

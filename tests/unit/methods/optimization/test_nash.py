"""Nash-MTL by Newton's method as a part of a run: kept weights, missing tasks, memory, and what its settings allow."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.methods.optimization.nash import ExactNashMTL
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer

ALL = torch.ones(2, dtype=torch.bool)


def test_weights_are_kept_for_some_steps_and_survive_a_restart() -> None:
    aggregator = ExactNashMTL(max_norm=0.0, update_weights_every=2)
    first = aggregator.weigh(torch.diag(torch.tensor([4.0, 1.0])), ALL)
    other = torch.diag(torch.tensor([1.0, 1.0]))
    resumed = ExactNashMTL(max_norm=0.0, update_weights_every=2)
    resumed.load_state_dict(aggregator.state_dict())
    for each in (aggregator, resumed):
        assert torch.equal(each.weigh(other, ALL), first), "kept"
        assert each.weigh(other, ALL).tolist() == pytest.approx([1.0, 1.0]), "renewed"
    aggregator.reset()
    assert aggregator.state_dict() == {}


def test_kept_weights_are_not_those_of_other_tasks() -> None:
    aggregator = ExactNashMTL(max_norm=0.0, update_weights_every=100)
    gram = torch.diag(torch.tensor([4.0, 1.0]))
    assert aggregator.weigh(gram, torch.tensor([True, False])).tolist() == pytest.approx([0.5, 0.0])
    assert aggregator.weigh(gram, torch.tensor([False, True])).tolist() == pytest.approx([0.0, 1.0])
    assert aggregator.weigh(gram, ALL).tolist() == pytest.approx([0.5, 1.0])


def test_the_direction_is_shortened() -> None:
    gram = torch.diag(torch.tensor([4.0, 1.0]))
    weights = ExactNashMTL(max_norm=0.5).weights(gram)
    assert float(weights @ gram @ weights) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "ecos"}, "must be 'newton' or 'torchjd'; got 'ecos'"),
        (
            {"optim_niter": 3},
            "no setting 'optim_niter'; its settings are max_norm, update_weights_every, and `solver`: 'newton' or",
        ),
        ({"solver": "newton", "optim_niter": 3}, "no setting 'optim_niter'"),
        ({"solver": "newton", "max_norm": -1.0}, "at least 0; got -1.0"),
        ({"solver": "newton", "update_weights_every": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        jacobian_balancer("NashMTL", **settings)


def test_newton_is_the_default_and_the_number_of_tasks_need_not_be_given() -> None:
    for settings in ({}, {"n_tasks": 3}, {"solver": "newton"}):
        assert isinstance(jacobian_balancer("NashMTL", **settings).aggregator, ExactNashMTL)  # type: ignore[attr-defined]

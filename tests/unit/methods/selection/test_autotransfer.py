"""AutoTransfer: Fisher scalars, projections and priors by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.methods.selection.autotransfer import (
    DesignPrior,
    TaskProjection,
    anchor_feature,
    design_prior,
    fisher_scalar,
    rank_similarities,
)

DESIGNS = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])


def test_rank_similarities_are_kendalls_tau() -> None:
    scores = np.array([[1.0, 2, 3, 4], [4.0, 3, 2, 1], [1.0, 2, 4, 3], [5.0, 5, 5, 5]])
    found = rank_similarities(scores)
    assert found[0, 1] == -1.0
    # One of six pairs is turned round.
    assert found[0, 2] == pytest.approx(4 / 6)
    assert found[0, 3] == 0.0
    np.testing.assert_array_equal(found, found.T)


def test_the_scalar_does_not_depend_on_scale() -> None:
    squares = [torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0], [2.0]])]
    assert fisher_scalar(squares) == pytest.approx((1 + 9 + 4 + 4) / 4 / 4)
    assert fisher_scalar([1e-18 * part for part in squares]) == pytest.approx(4.5 / 4)
    assert fisher_scalar([torch.ones(3)]) == pytest.approx(1.0)
    with pytest.raises(DataError, match="No gradient"):
        fisher_scalar([torch.zeros(2)])


def features_of(labels: torch.Tensor, body: nn.Module, rows: torch.Tensor, seed: int = 0) -> float:
    train, held = torch.arange(20), torch.arange(20, 40)
    return anchor_feature(
        body, lambda: torch.tanh(body(rows)), labels, train, held, 2, generator=torch.Generator().manual_seed(seed)
    )


def test_anchors_look_at_training_labels_alone_and_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    body, rows = nn.Linear(3, 5), torch.randn(40, 3)
    labels = (rows[:, 0] > 0).long()
    before = body.weight.detach().clone()
    found = features_of(labels, body, rows)
    assert torch.equal(before, body.weight)
    assert body.weight.grad is None
    assert found >= 1.0
    assert features_of(labels, body, rows) == found
    other = labels.clone()
    other[20:] = 1 - other[20:]
    assert features_of(other, body, rows) == found, "held-out labels are drawn from the network"
    other[:20] = (rows[:20, 1] > 0).long()
    assert features_of(other, body, rows) != found


def test_gradients_of_an_anchor_by_hand() -> None:
    torch.manual_seed(1)
    body, rows = nn.Linear(2, 3, bias=False), torch.randn(12, 2)
    labels = torch.tensor([0, 1] * 6)
    train, held = torch.arange(6), torch.arange(6, 12)
    found = anchor_feature(
        body, lambda: body(rows), labels, train, held, 2, draws=1, steps=0, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 3, generator=generator) * 3**-0.5
    logits = rows[held] @ body.weight.detach().T @ weight.T
    drawn = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    wrong = (logits.softmax(dim=1) - nn.functional.one_hot(drawn, 2)) / 6
    squares = (weight.T @ wrong.T @ rows[held]) ** 2
    assert found == pytest.approx(float((squares**2).mean() / squares.mean() ** 2), rel=1e-5)


def test_projected_tasks_are_ordered_as_they_are_truly() -> None:
    random = np.random.default_rng(0)
    groups = np.array([0, 0, 0, 1, 1, 1])
    features = np.array([[1.0, 0.2, 0.1], [0.1, 1.0, 0.3]])[groups] + 0.15 * random.random((6, 3))
    similar = np.where(groups[:, None] == groups[None], 0.8, -0.2)
    fitted = TaskProjection(features, similar, steps=150, rate=1e-2, seed=0)
    distances = fitted.distances(np.array([1.0, 0.25, 0.12]))
    assert distances[:3].max() < distances[3:].min()
    assert (distances > -1e-6).all()
    np.testing.assert_allclose(fitted.distances(np.array([2.0, 0.5, 0.24])), distances, atol=1e-5)
    again = TaskProjection(features, similar, steps=150, rate=1e-2, seed=0)
    np.testing.assert_array_equal(again.distances(features[0]), fitted.distances(features[0]))
    with pytest.raises(DataError, match="three tasks"):
        TaskProjection(features[:2], similar[:2, :2])


def test_a_prior_is_the_weighted_frequency_of_the_best_designs_of_near_tasks() -> None:
    scores = np.array([[9.0, 8, 1, 1, 1, 1], [1.0, 1, 9, 1, 8, 1], [1.0, 1, 1, 1, 1, 9]])
    prior = design_prior(DESIGNS, scores, np.array([0.1, 0.2, 0.9]), nearest=2, best=2)
    # The best of the first task are 00 and 01, of the second 10 and 20; weights 10 and 5.
    np.testing.assert_allclose(prior.chances[0], [10 / 15, 2.5 / 15, 2.5 / 15])
    np.testing.assert_allclose(prior.chances[1], [(5 + 5) / 15, 5 / 15])
    np.testing.assert_allclose(prior.of(DESIGNS).sum(), 1.0)
    exact = design_prior(DESIGNS, scores, np.array([0.0, 0.2, 0.9]), nearest=2, best=2)
    assert exact.chances[0][1] > 0.0, "a task at distance 0 does not decide alone"
    with pytest.raises(ConfigError, match="at least one near task"):
        design_prior(DESIGNS, scores, np.ones(3), nearest=0)
    with pytest.raises(ConfigError, match="scores"):
        design_prior(DESIGNS, scores[:2], np.ones(3))


def test_designs_are_tried_once_each_and_by_their_chances() -> None:
    prior = DesignPrior((np.array([0.8, 0.2, 0.0]), np.array([0.5, 0.5])))
    random = np.random.default_rng(0)
    orders = np.array([prior.order(DESIGNS, random) for _ in range(600)])
    assert (np.sort(orders, axis=1) == np.arange(6)).all()
    assert set(orders[:, 4:].reshape(-1).tolist()) == {4, 5}, "what the prior excludes comes last"
    shares = np.bincount(orders[:, 0], minlength=6) / 600
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.1, 0.1, 0.0, 0.0], atol=0.06)
    with pytest.raises(ConfigError, match="chances"):
        DesignPrior((np.array([0.5, 0.6]),))

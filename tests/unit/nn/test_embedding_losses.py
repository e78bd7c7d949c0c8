from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, rankdata
from torch import Tensor
from torch.nn import functional as F

from graftwork.nn.embedding_losses import (
    average_ranks,
    graded_loss,
    list_wise_loss,
    multi_positive_contrast,
    pearson_loss,
    rank_divergence,
)

SIMILAR = torch.tensor([0.3, 0.9, -0.2, 0.5, 0.1])
GRADES = torch.tensor([1.0, 3.0, 0.0, 3.0, 1.0])


def test_each_positive_stands_against_all_hard_negatives_and_no_other_positive_of_its_query() -> None:
    torch.manual_seed(0)
    queries, passages = F.normalize(torch.randn(3, 4), dim=1), F.normalize(torch.randn(3, 4, 4), dim=2)
    expected = []
    for place in range(2):
        for query in range(3):
            scores = [queries[query] @ passages[other, item] / 0.1 for other in range(3) for item in (place, 2, 3)]
            expected.append(torch.logsumexp(torch.stack(scores), dim=0) - queries[query] @ passages[query, place] / 0.1)
    found = multi_positive_contrast(queries, passages, 2, temperature=0.1)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_without_hard_negatives_it_is_plain_contrast() -> None:
    queries, passages = F.normalize(torch.randn(5, 4), dim=1), F.normalize(torch.randn(5, 1, 4), dim=2)
    expected = F.cross_entropy(queries @ passages[:, 0].T / 0.02, torch.arange(5))
    torch.testing.assert_close(multi_positive_contrast(queries, passages, 1), expected)


def test_correlation_is_that_of_scipy() -> None:
    expected = 1.0 - pearsonr(SIMILAR.numpy(), GRADES.numpy()).statistic
    torch.testing.assert_close(float(pearson_loss(SIMILAR, GRADES)), float(expected), rtol=1e-5, atol=1e-6)


def test_ranks_of_equal_grades_are_their_mean() -> None:
    np.testing.assert_allclose(average_ranks(GRADES).numpy(), rankdata(-GRADES.numpy(), method="average") - 1)


def test_the_divergence_of_ranks_is_the_formula() -> None:
    ideal = torch.tensor([(4 - rank) / 4 for rank in (2.5, 0.5, 4.0, 0.5, 2.5)])
    wanted, found = (ideal / 0.05).softmax(0), (SIMILAR / 0.05).softmax(0)
    expected = (wanted * (wanted / found).log()).sum() / 5
    torch.testing.assert_close(rank_divergence(SIMILAR, GRADES), expected)
    assert float(rank_divergence(ideal, GRADES)) == pytest.approx(0.0, abs=1e-6)


def test_the_list_wise_loss_goes_pair_by_pair() -> None:
    order = GRADES.argsort(descending=True, stable=True)
    similar, grades = SIMILAR[order] / 0.05, GRADES[order]
    losses = []
    for k in range(4):
        below = [j for j in range(k + 1, 5) if grades[k] > grades[j]]
        if below:
            logits = [similar[k] * max(grades[k] - grades[j] for j in below)]
            logits += [similar[j] * (grades[k] - grades[j]) for j in below]
            losses.append(-torch.stack(logits).log_softmax(0)[0])
    torch.testing.assert_close(list_wise_loss(SIMILAR, GRADES), torch.stack(losses).mean())


@pytest.mark.parametrize("loss", [pearson_loss, rank_divergence, list_wise_loss])
def test_equal_grades_teach_nothing(loss: object) -> None:
    similar = SIMILAR.clone().requires_grad_()
    found: Tensor = loss(similar, torch.full((5,), 2.0))  # type: ignore[operator]
    found.backward()
    assert float(found.detach()) == 0.0
    assert similar.grad is not None
    assert bool((similar.grad == 0).all())


def test_the_sum_has_the_papers_weights_and_better_orders_cost_less() -> None:
    expected = 2 * pearson_loss(SIMILAR, GRADES) + 5 * rank_divergence(SIMILAR, GRADES) + 0.5 * list_wise_loss(SIMILAR, GRADES)
    torch.testing.assert_close(graded_loss(SIMILAR, GRADES), expected)
    assert graded_loss(GRADES / 3, GRADES) < graded_loss(-GRADES / 3, GRADES)

r"""Losses on embeddings of texts: retrieval with several positives and hard negatives, and graded similarity of pairs.

Paper: "CoDiEmb: A Collaborative yet Distinct Framework for Unified Representation Learning in Information Retrieval and Semantic
Textual Similarity", 2025, https://arxiv.org/abs/2508.11442. Similarities are cosines: embeddings are of length 1.

The three losses on graded pairs are 0, with a gradient of 0, where all grades are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["average_ranks", "graded_loss", "list_wise_loss", "multi_positive_contrast", "pearson_loss", "rank_divergence"]


def multi_positive_contrast(queries: Tensor, passages: Tensor, num_positives: int, *, temperature: float = 0.02) -> Tensor:
    """Return the contrastive loss of queries with several positives, a scalar.

    Each positive is told apart from the hard negatives of all queries and from the positives at the same place of the other
    queries; the query's other positives are no candidates. The mean over positives and queries.

    Args:
        queries: Embeddings of length 1, ``[B, D]``.
        passages: Embeddings of length 1, ``[B, P + H, D]``: the positives of each query first, then its hard negatives.
        num_positives: ``P``, at least 1; ``H`` may be 0.
        temperature: Above 0.
    """
    rows, negatives = len(queries), passages.shape[1] - num_positives
    target = torch.arange(rows, device=queries.device) * (1 + negatives)
    losses = []
    for place in range(num_positives):
        # [B, 1 + H, D] to [B * (1 + H), D]: the positive of each query stands in front of its negatives.
        candidates = torch.cat([passages[:, place : place + 1], passages[:, num_positives:]], dim=1).flatten(0, 1)
        losses.append(F.cross_entropy(queries @ candidates.T / temperature, target))
    return torch.stack(losses).mean()


def pearson_loss(similarity: Tensor, grade: Tensor) -> Tensor:
    """Return one minus Pearson's correlation between similarities and grades, a scalar in [0, 2].

    Args:
        similarity: ``[n]``.
        grade: ``[n]``.
    """
    one, two = similarity - similarity.mean(), grade - grade.mean()
    size = one.norm() * two.norm()
    return torch.where(two.abs().max() > 0, 1.0 - (one @ two) / size.clamp(min=1e-8), similarity.sum() * 0.0)


def average_ranks(values: Tensor) -> Tensor:
    """Return ranks from 0, the largest value first, equal values at the mean of their ranks.

    Example:
        >>> average_ranks(torch.tensor([1.0, 3.0, 3.0, 0.0])).tolist()
        [2.0, 0.5, 0.5, 3.0]
    """
    above = (values.unsqueeze(0) > values.unsqueeze(1)).sum(dim=1)
    equal = (values.unsqueeze(0) == values.unsqueeze(1)).sum(dim=1)
    return above + (equal - 1) / 2.0


def rank_divergence(similarity: Tensor, grade: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Return the divergence of the softmax of similarities from that of ideal scores, over the number of pairs, a scalar.

    Ideal scores fall evenly from 1 for the first rank of the grades to 0 for the last one; equal grades have equal scores.

    Args:
        similarity: ``[n]``.
        grade: ``[n]``.
        temperature: Of both, above 0.
    """
    count = len(grade)
    ideal = (count - 1 - average_ranks(grade)) / max(count - 1, 1)
    wanted = F.log_softmax(ideal.to(similarity.dtype) / temperature, dim=0)
    found = F.kl_div(F.log_softmax(similarity / temperature, dim=0), wanted, reduction="sum", log_target=True) / max(count, 1)
    return torch.where(grade.max() > grade.min(), found, similarity.sum() * 0.0)


def list_wise_loss(similarity: Tensor, grade: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Return the list-wise preference loss, a scalar: each pair against all pairs of a lower grade.

    Of pair ``k`` with the grade ``y_k`` and a pair ``j`` below it the logits are ``s_k`` times the largest difference of grades, and
    ``s_j`` times its own difference, over the temperature: the farther apart two grades are, the more their order counts.

    Args:
        similarity: ``[n]``.
        grade: ``[n]``.
        temperature: Above 0.
    """
    apart = grade.unsqueeze(1) - grade.unsqueeze(0)  # [k, j]
    below = apart > 1e-8
    scaled = similarity / temperature
    logits = (scaled.unsqueeze(0) * apart).masked_fill(~below, float("-inf"))
    own = scaled * apart.masked_fill(~below, 0.0).amax(dim=1)
    counts = below.any(dim=1)
    # Pairs with nothing below them would be -inf alone; their own logit keeps the sum finite.
    losses = torch.logsumexp(torch.cat([own.unsqueeze(1), logits], dim=1), dim=1) - own
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def graded_loss(similarity: Tensor, grade: Tensor, *, weights: tuple[float, float, float] = (2.0, 5.0, 0.5)) -> Tensor:
    """Return the weighted sum of :func:`pearson_loss`, :func:`rank_divergence` and :func:`list_wise_loss`, a scalar."""
    linear, ranks, lists = weights
    return (
        linear * pearson_loss(similarity, grade)
        + ranks * rank_divergence(similarity, grade)
        + lists * list_wise_loss(similarity, grade)
    )

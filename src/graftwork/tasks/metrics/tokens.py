"""Metrics of token sequences: perplexity and the share of right tokens. Targets ``[N, L]``, -1 where there is no token;
predictions are probabilities ``[N, size, L]``."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Metric
from graftwork.math.weighted_sums import divide, from_sums

__all__ = ["PERPLEXITY", "SEQUENCE_ACCURACY", "TOKEN_ACCURACY"]

SMALLEST_PROBABILITY = 1e-7
"""Perplexity clips here: a sure and wrong token costs 16.1 nats, not infinity."""


def _perplexity(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Exponential of the mean negative log probability of a token: how many equally likely tokens would be as hard."""
    known = target >= 0
    chosen = np.take_along_axis(prediction, np.where(known, target, 0)[:, None], axis=1)[:, 0].astype(np.float64)
    loss = np.where(known, -np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)), 0.0)
    columns = np.stack([loss.sum(axis=1), known.sum(axis=1)], axis=1)
    return from_sums(columns, lambda sums: np.exp(divide(sums[:, 0], sums[:, 1])))


def _token_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of tokens, ends included, that are the most probable ones."""
    known = target >= 0
    right = (prediction.argmax(axis=1) == target) & known
    return from_sums(np.stack([right.sum(axis=1), known.sum(axis=1)], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def _sequence_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows all tokens of which are right."""
    known = target >= 0
    labelled = known.any(axis=1)
    right = ((prediction.argmax(axis=1) == target) | ~known).all(axis=1) & labelled
    return from_sums(np.stack([right, labelled], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


PERPLEXITY = Metric("perplexity", "perplexity", False, 1.0, float("inf"), _perplexity)
TOKEN_ACCURACY = Metric("token_accuracy", "right tokens", True, 0.0, 1.0, _token_accuracy)
SEQUENCE_ACCURACY = Metric("sequence_accuracy", "right sequences", True, 0.0, 1.0, _sequence_accuracy)

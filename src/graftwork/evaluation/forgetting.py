"""What was lost between experiences: from scores after each of them to one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graftwork.core.errors import ConfigError

__all__ = ["forgetting"]


def forgetting(scores: Sequence[Sequence[float]]) -> float:
    """Return how far the classes of an experience have fallen from their best score to the last one, mean over all experiences
    but the last; below 0 if they gained from what came later, 0 for a single experience.

    Paper: Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, https://arxiv.org/abs/1801.10112 (equation 7).

    Args:
        scores: Row ``i`` holds the scores, higher is better, of the classes of experiences 0 to ``i`` after experience ``i``.

    Raises:
        ConfigError: If there is no row, or row ``i`` has no ``i + 1`` scores.

    Example:
        >>> round(forgetting([[0.9], [0.6, 0.8], [0.5, 0.9, 0.7]]), 3)
        0.15
    """
    if not scores or [len(row) for row in scores] != list(range(1, len(scores) + 1)):
        raise ConfigError(f"Scores of experiences grow by one in each row; got rows of {[len(row) for row in scores]} scores.")
    last = scores[-1]
    # Best score before the last experience, less the last one.
    falls = [max(row[number] for row in scores[number:-1]) - last[number] for number in range(len(scores) - 1)]
    return float(np.mean(falls)) if falls else 0.0

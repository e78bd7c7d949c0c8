"""Scorer: how promising is a source for a target, judged without training on it.

A scorer sees one source by its features of the target's rows. Scores that need class probabilities of the source take these as
features, ``[N, num_source_classes]``. There is no scorer yet; sets of sources and rows that do not fit into memory are not
covered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Scorer"]


class Scorer(ABC):
    """Higher is better; scores of one scorer compare across sources, scores of two scorers do not."""

    @abstractmethod
    def score(self, features: Tensor, labels: Tensor) -> float:
        """Return the score.

        Args:
            features: The source's features of the target rows, ``[N, D]``.
            labels: Class indices int64 ``[N]``, or values float ``[N, K]``.

        Raises:
            ValueError: If a label is missing or a feature is not finite.
        """

"""Scorer: how promising is a source for a target, judged without training on it.

How the hardest systems fit:

- PED moves features before any scorer sees them and needs the source's statistics on generic data: it is a transform with its own
  constructor arguments, wrapped around a scorer, so that the signature stays.
- OSBORN scores sets of sources by submodular terms: it is a selector one floor up that calls pairwise terms; a ``Scorer`` scores one
  source. LEEP-like scores need source-class probabilities: these are features to them, ``[N, num_source_classes]``.
- Streaming over rows larger than memory: scorers that can, accumulate moments in ``update`` and answer in ``finish``; ``score`` is the two
  in one call.
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

"""DP4TL: which classes of a source data set are worth pre-training on, for one target.

Paper: Zhang et al., "Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning", NeurIPS 2023,
https://arxiv.org/abs/2310.08782. A small surrogate, trained once on the whole source, looks at the target's training rows:

- Label mapping: each row votes for the source class that the surrogate answers.
- Feature mapping, for sources without labels: the source's features are clustered by k-means into about as many groups as there may be
  classes, and each row of the target votes for the group whose centre is nearest.

Classes (groups) are kept in the order of their votes, each with all its rows, and the large model is pre-trained from scratch on what is
kept. Ties, classes without any vote among them, are broken at random with a seed. The released feature mapping writes all distances
into one place of an array, so that only two classes can ever be voted for; here it is as the paper describes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError

__all__ = ["ClassRanking", "feature_votes", "label_votes", "source_groups"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassRanking:
    """Classes of a source in the order in which they are kept.

    Args:
        votes: Rows of the target that voted for each class, ``[C]``.
        seed: Breaks ties.

    Raises:
        DataError: If there is no class, or no vote at all.
    """

    votes: Ints
    seed: int = 0

    def __post_init__(self) -> None:
        if not len(self.votes) or not self.votes.sum() > 0:
            raise DataError("Classes of a source are ranked by votes of the target's rows: there is none.")

    @property
    def order(self) -> Ints:
        """Numbers of the classes, those with most votes first, ``[C]``."""
        ties = np.random.default_rng(self.seed).permutation(len(self.votes))
        return np.lexsort((ties, -self.votes)).astype(np.int64)

    @property
    def without_votes(self) -> int:
        """How many classes no row voted for."""
        return int((self.votes == 0).sum())

    def kept(self, pruned: float) -> Ints:
        """Return the classes that are left, ascending.

        Args:
            pruned: Share of the classes that is dropped, in [0, 1); at least one class is left.

        Raises:
            ConfigError: If the share is out of range.
        """
        return np.sort(self.order[: max(1, round((1.0 - _share(pruned)) * len(self.votes)))])

    def kept_rows(self, groups: Ints, pruned: float) -> Ints:
        """Return rows of the source, ascending: whole classes in their order, and of the last one as many as make the share of rows
        exact. For classes of unequal sizes, where equal numbers of classes would not be equal costs.

        Args:
            groups: Class of each row of the source, ``[n]``.
            pruned: Share of the rows that is dropped, in [0, 1).

        Raises:
            ConfigError: If the share is out of range.
        """
        place = np.empty(len(self.votes), dtype=np.int64)
        place[self.order] = np.arange(len(self.votes))
        mixed = np.random.default_rng([self.seed, 1]).permutation(len(groups))
        first = mixed[np.argsort(place[groups[mixed]], kind="stable")]
        return np.sort(first[: max(1, round((1.0 - _share(pruned)) * len(groups)))])

    def coverage(self) -> Floats:
        """Return the share of all votes that the first 1, 2, ... classes have, ``[C]``."""
        return np.asarray(np.cumsum(self.votes[self.order]) / self.votes.sum(), dtype=np.float64)

    def needed(self, covered: float) -> int:
        """Return how many classes have at least this share of the votes, in (0, 1]."""
        return int(np.searchsorted(self.coverage(), covered - 1e-12) + 1)


def _share(pruned: float) -> float:
    if not 0.0 <= pruned < 1.0:
        raise ConfigError(f"The share that is pruned is in [0, 1); got {pruned!r}.")
    return pruned


def label_votes(answers: Array) -> Ints:
    """Return the votes of label mapping, ``[C]``.

    Args:
        answers: Probabilities or logits of the source's classes for the target's training rows, ``[n, C]``, of a surrogate in evaluation
            mode, for rows without augmentation.

    Raises:
        DataError: If a number is not finite.
    """
    if answers.ndim != 2 or not np.isfinite(answers).all():
        raise DataError(f"Votes need finite answers [rows, classes]; got {answers.shape}.")
    return np.bincount(answers.argmax(axis=1), minlength=answers.shape[1]).astype(np.int64)


def source_groups(features: Array, groups: int, *, seed: int = 0) -> tuple[Ints, Floats]:
    """Return the group of each row of a source ``[n]`` and the centres ``[groups, D]``, by k-means.

    Args:
        features: The surrogate's features of the source, ``[n, D]``.
        groups: About the number of classes, from 1 to ``n``.
        seed: Draws the starts.

    Raises:
        ConfigError: If there are more groups than rows.
    """
    if not 1 <= groups <= len(features):
        raise ConfigError(f"A source of {len(features)} rows has from 1 to {len(features)} groups; got {groups!r}.")
    from sklearn.cluster import KMeans

    found = KMeans(groups, n_init=3, random_state=seed % 2**31).fit(np.asarray(features, dtype=np.float64))
    return found.labels_.astype(np.int64), np.asarray(found.cluster_centers_, dtype=np.float64)


def feature_votes(features: Array, centres: Array) -> Ints:
    """Return the votes of feature mapping, ``[groups]``.

    Args:
        features: The surrogate's features of the target's training rows, ``[n, D]``.
        centres: ``[groups, D]``.
    """
    from scipy.spatial.distance import cdist

    nearest = cdist(np.asarray(features, dtype=np.float64), np.asarray(centres, dtype=np.float64)).argmin(axis=1)
    return np.bincount(nearest, minlength=len(centres)).astype(np.int64)

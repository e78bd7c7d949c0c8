"""Retrieval across cameras, the protocol of re-identification: rank a gallery for each query, and see how early its identity
comes.

A gallery item of the same identity *and* camera as the query is nearly the same picture and does not count, neither as a match
nor as a mistake. Protocol: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015 (Market-1501).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["Distance", "RetrievalScores", "Sightings", "retrieval_scores"]

Array = NDArray[Any]
Distance = Literal["cosine", "euclidean"]
_BLOCK_ENTRIES = 1 << 22
"""Likenesses held at a time: 32 MB."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """Pictures as vectors, with what is known of them.

    Raises:
        ConfigError: If the lengths differ, or a vector is not finite.
    """

    vectors: Array
    """``[N, D]``."""
    identities: Array
    """``[N]`` integers; below 0 for pictures that show nobody, which match no query."""
    cameras: Array
    """``[N]`` integers."""

    def __post_init__(self) -> None:
        lengths = {"vectors": len(self.vectors), "identities": len(self.identities), "cameras": len(self.cameras)}
        if len(set(lengths.values())) > 1 or np.ndim(self.vectors) != 2:
            raise ConfigError(f"Sightings need vectors [N, D] and as many identities and cameras; got {lengths}.")
        if not np.isfinite(self.vectors).all():
            raise ConfigError("Sightings need finite vectors; some hold NaN or infinity.")


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """How well a gallery was ranked."""

    mean_average_precision: float
    """Mean over queries of the mean precision at the ranks of its matches, 0 to 1."""
    rank_1: float
    """Share of queries whose nearest counted item is a match; likewise among the five and the ten nearest."""
    rank_5: float
    rank_10: float
    queries: int
    """Queries that count."""
    without_match: int
    """Queries without a match in the gallery (by another camera); they do not count."""

    def to_json(self) -> dict[str, float]:
        """Return a JSON object."""
        return asdict(self)


def retrieval_scores(query: Sightings, gallery: Sightings | None = None, *, distance: Distance = "cosine") -> RetrievalScores:
    """Rank a gallery for every query.

    Of items that are equally near, those of other identities come first, so that vectors that are all the same find nothing.

    Args:
        query: Who is looked for.
        gallery: Where; None takes the queries themselves (no item finds itself: its identity and camera are the query's).
        distance: What near means.

    Raises:
        ConfigError: If vectors have other lengths, or no query has a match.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> scores = retrieval_scores(Sightings(vectors, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])))
        >>> scores.mean_average_precision, scores.rank_1
        (1.0, 1.0)
    """
    gallery = query if gallery is None else gallery
    if distance not in get_args(Distance):
        raise ConfigError(f"`distance` must be one of {', '.join(get_args(Distance))}; got {distance!r}.")
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise ConfigError(f"Queries have {query.vectors.shape[1]} values a vector and the gallery {gallery.vectors.shape[1]}.")
    size = max(1, _BLOCK_ENTRIES // max(len(gallery.vectors), 1))
    parts = [_rank(query, gallery, slice(at, at + size), distance) for at in range(0, len(query.vectors), size)]
    # Each part is (precision, rank); zip turns the parts into the two columns.
    precision, first = (
        np.concatenate(column) if parts else np.zeros(0) for column in (zip(*parts, strict=True) if parts else ((), ()))
    )
    counted = ~np.isnan(precision)
    if not counted.any():
        raise ConfigError(
            f"None of {len(precision)} queries has a match by another camera in a gallery of {len(gallery.vectors)}."
        )
    within = {near: float((first[counted] <= near).mean()) for near in (1, 5, 10)}
    count = int(counted.sum())
    return RetrievalScores(float(precision[counted].mean()), within[1], within[5], within[10], count, len(precision) - count)


def _rank(query: Sightings, gallery: Sightings, rows: slice, distance: Distance) -> tuple[Array, Array]:
    """Return average precision and rank of the first match of some queries; NaN and 0 without a match."""
    likeness = _likeness(query.vectors[rows], gallery.vectors, distance)
    ids = query.identities[rows, None]
    # Pictures of nobody share -1 and must not match each other.
    same = (ids == gallery.identities) & (ids >= 0)
    counts = ~(same & (query.cameras[rows, None] == gallery.cameras))
    matches = same & counts
    # The last key sorts first: nearest first, and among equals those that are no match.
    order = np.lexsort((matches, -likeness), axis=1)
    matches, counts = np.take_along_axis(matches, order, axis=1), np.take_along_axis(counts, order, axis=1)
    # [Q, G]: rank among the items that count, and matches seen so far.
    rank, found, total = counts.cumsum(axis=1), matches.cumsum(axis=1), matches.sum(axis=1)
    precision = np.where(matches, found / np.maximum(rank, 1), 0.0).sum(axis=1)
    # argmax finds the first match in order; its rank leaves out what does not count.
    first = np.where(total > 0, np.take_along_axis(rank, matches.argmax(axis=1)[:, None], axis=1)[:, 0], 0)
    return np.where(total > 0, precision / np.maximum(total, 1), np.nan), first


def _likeness(query: Array, gallery: Array, distance: Distance) -> Array:
    """Return ``[Q, G]``, higher is nearer, rounded: equal vectors must be equally near, whatever the order of additions."""
    query, gallery = (np.asarray(part, dtype=np.float64) for part in (query, gallery))
    if distance == "cosine":
        query, gallery = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (query, gallery))
    product = query @ gallery.T
    if distance == "euclidean":
        # -|q - g|^2 = 2 q g - |q|^2 - |g|^2
        product = 2 * product - (query**2).sum(axis=1)[:, None] - (gallery**2).sum(axis=1)
    return np.round(product, 9)

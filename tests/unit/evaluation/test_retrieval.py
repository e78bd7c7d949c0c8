"""Retrieval across cameras against a written-out protocol, one query and one item at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.evaluation import retrieval
from graftwork.evaluation.retrieval import Sightings, retrieval_scores


def by_hand(query: Sightings, gallery: Sightings) -> tuple[float, float, float, int]:
    """mAP, rank 1, rank 5 and queries that count, by loops; items that are equally near: those of other identities first."""
    precisions, firsts = [], []
    for vector, identity, camera in zip(query.vectors, query.identities, query.cameras, strict=True):
        kept = []
        for other, who, where in zip(gallery.vectors, gallery.identities, gallery.cameras, strict=True):
            if who == identity and who >= 0 and where == camera:
                continue
            product = float(np.dot(vector, other) / max(np.linalg.norm(vector) * np.linalg.norm(other), 1e-12))
            kept.append((-round(product, 9), bool(who == identity and who >= 0)))
        kept.sort()
        hits = [place for place, (_, is_match) in enumerate(kept, 1) if is_match]
        if hits:
            precisions.append(np.mean([number / place for number, place in enumerate(hits, 1)]))
            firsts.append(hits[0])
    near = [float(np.mean([first <= limit for first in firsts])) for limit in (1, 5)]
    return float(np.mean(precisions)), near[0], near[1], len(precisions)


def drawn(random: np.random.Generator, rows: int, *, coarse: bool) -> Sightings:
    vectors = random.normal(size=(rows, 3))
    if coarse:
        vectors = np.round(vectors)  # many are equally near
    return Sightings(vectors, random.integers(-1, 4, rows), random.integers(0, 3, rows))


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 25), coarse=st.booleans(), alone=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_scores_are_those_of_the_written_out_protocol(seed: int, rows: int, coarse: bool, alone: bool) -> None:
    random = np.random.default_rng(seed)
    query = drawn(random, rows, coarse=coarse)
    gallery = query if alone else drawn(random, rows + 3, coarse=coarse)
    try:
        scores = retrieval_scores(query, None if alone else gallery)
    except ConfigError:
        kept = (query.identities[:, None] == gallery.identities) & (query.identities[:, None] >= 0)
        assert not (kept & (query.cameras[:, None] != gallery.cameras)).any()
        return
    expected = by_hand(query, gallery)
    assert (scores.mean_average_precision, scores.rank_1, scores.rank_5) == pytest.approx(expected[:3])
    assert (scores.queries, scores.without_match) == (expected[3], len(query.vectors) - expected[3])


def test_the_same_picture_by_the_same_camera_is_neither_match_nor_mistake() -> None:
    # the query's own camera saw it twice; by another camera it is second behind somebody else
    vectors = np.array([[1.0, 0.0], [1.0, 0.01], [0.9, 0.1], [0.5, 0.5]])
    identities, cameras = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    query = Sightings(vectors[:1], identities[:1], cameras[:1])
    scores = retrieval_scores(query, Sightings(vectors, identities, cameras))
    assert scores.mean_average_precision == 0.5
    assert (scores.rank_1, scores.rank_5) == (0.0, 1.0)
    elsewhere = retrieval_scores(query, Sightings(vectors, identities, np.array([2, 2, 1, 1])))
    assert elsewhere.mean_average_precision == pytest.approx((1 + 1 + 3 / 4) / 3), "seen by other cameras they all count"


def test_vectors_that_are_all_the_same_find_nothing() -> None:
    same = Sightings(np.ones((20, 4)), np.arange(20) % 10, np.arange(20) // 10)
    scores = retrieval_scores(same)
    assert scores.rank_1 == 0.0
    assert scores.mean_average_precision == pytest.approx(1 / 19)


def test_queries_without_a_match_do_not_count() -> None:
    seen = Sightings(np.eye(4), np.array([0, 0, 1, -1]), np.array([0, 1, 0, 1]))
    scores = retrieval_scores(seen)
    assert (scores.queries, scores.without_match) == (2, 2)


def test_euclidean_and_cosine_are_told_apart() -> None:
    query = Sightings(np.array([[1.0, 0.0]]), np.array([0]), np.array([0]))
    gallery = Sightings(np.array([[9.0, 0.0], [1.0, 0.5]]), np.array([0, 1]), np.array([1, 1]))
    assert retrieval_scores(query, gallery).rank_1 == 1.0
    assert retrieval_scores(query, gallery, distance="euclidean").rank_1 == 0.0


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = drawn(np.random.default_rng(3), 40, coarse=True)
    whole = retrieval_scores(seen)
    monkeypatch.setattr(retrieval, "_BLOCK_ENTRIES", 120)
    assert retrieval_scores(seen) == whole
    assert whole.to_json()["queries"] == whole.queries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((3, 2))}, "as many identities and cameras; got"),
        ({"vectors": np.zeros(2)}, "need vectors"),
        ({"vectors": np.array([[np.nan, 0.0], [0.0, 1.0]])}, "finite vectors"),
        ({"cameras": np.array([0, 0])}, "None of 2 queries has a match by another camera in a gallery of 2"),
    ],
)
def test_what_cannot_be_ranked_is_named(change: dict[str, Any], message: str) -> None:
    fields = {"vectors": np.eye(2), "identities": np.array([0, 0]), "cameras": np.array([0, 1]), **change}
    with pytest.raises(ConfigError, match=message):
        retrieval_scores(Sightings(**fields))


def test_other_widths_and_distances_are_named() -> None:
    pair = [Sightings(np.ones((2, width)), np.zeros(2, int), np.arange(2)) for width in (2, 3)]
    with pytest.raises(ConfigError, match="Queries have 2 values a vector and the gallery 3"):
        retrieval_scores(*pair)
    with pytest.raises(ConfigError, match="`distance` must be one of cosine, euclidean; got 'l1'"):
        retrieval_scores(pair[0], distance="l1")  # type: ignore[arg-type]

"""Sets of sources: LEEP of ensembles against its definition, and greedy choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows
from graftwork.methods.selection.ensemble_leep import EnsembleLeep
from graftwork.methods.selection.greedy import GreedySets
from graftwork.methods.selection.leep import Leep

Floats = NDArray[np.float64]


def answers(seed: int, sources: int = 3, rows: int = 60) -> tuple[list[Floats], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), random.integers(3, size=rows - 3)])
    found = []
    for index in range(sources):
        logits = random.normal(size=(rows, 4 + index)) + 2.0 * random.normal(size=(3, 4 + index))[labels]
        found.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return found, labels


def blocks(seen: list[Floats], labels: NDArray[np.int64], cut: int = 25) -> list[list[ScoredRows]]:
    parts = (slice(0, cut), slice(cut, None))
    return [[ScoredRows(target=labels[part], probabilities=one[part]) for one in seen] for part in parts]


def likelihood(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    joint = np.array([probabilities[labels == label].sum(axis=0) for label in range(3)])
    return ((joint / joint.sum(axis=0))[labels] * probabilities).sum(axis=1)


def test_ensembles_are_judged_as_in_the_paper() -> None:
    seen, labels = answers(0)
    mean = EnsembleLeep().run(lambda: blocks(seen, labels))
    added = EnsembleLeep("sum").run(lambda: blocks(seen, labels))
    each = [likelihood(one, labels) for one in seen]
    assert mean([0, 2]) == pytest.approx(np.log((each[0] + each[2]) / 2).mean())
    assert added([0, 2]) == pytest.approx(sum(np.log(each[index]).mean() for index in (0, 2)))
    assert mean([1]) == pytest.approx(Leep().score(seen[1], labels))
    padded = [np.concatenate([one, one[:5]]) for one in seen]
    holes = np.concatenate([labels, np.full(5, -1)])
    assert EnsembleLeep().run(lambda: blocks(padded, holes))([0, 1]) == pytest.approx(mean([0, 1]))


def test_what_does_not_fit_is_refused() -> None:
    seen, labels = answers(0)
    scorer = EnsembleLeep()
    scorer.update(blocks(seen, labels)[0])
    with pytest.raises(DataError, match="2 sources after blocks of 3"):
        scorer.update(blocks(seen, labels)[0][:2])
    with pytest.raises(ConfigError, match="got 'odd'"):
        EnsembleLeep("odd")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="none was seen"):
        EnsembleLeep().finish()
    with pytest.raises(DataError, match="first pass"):
        Leep().likelihoods(blocks(seen, labels)[0][0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 5))
def test_greedy_sets_cover_enough_of_the_best(seed: int, size: int) -> None:
    covered = np.random.default_rng(seed).random(size=(6, 12)) < 0.3

    def value(members: object) -> float:
        return float(covered[list(members)].any(axis=0).sum())  # type: ignore[call-overload]

    chosen = GreedySets().select(value, 6, size)
    assert len(set(chosen)) == size
    best = max(value(part) for part in itertools.combinations(range(6), size))
    assert value(chosen) >= (1 - 1 / np.e) * best
    assert chosen[0] == max(range(6), key=lambda index: (value([index]), -index))


def test_sizes_out_of_range_are_refused() -> None:
    for size in (0, 4):
        with pytest.raises(ConfigError, match="from 1 to 3"):
            GreedySets().select(lambda members: 0.0, 3, size)

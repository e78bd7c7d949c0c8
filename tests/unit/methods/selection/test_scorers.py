"""Scores against formulas that were written independently, their invariances, and what they refuse."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import transferability_formulas as formulas
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows, Scorer
from graftwork.methods.selection.gbc import BhattacharyyaSeparability
from graftwork.methods.selection.h_score import HScore
from graftwork.methods.selection.leep import Leep
from graftwork.methods.selection.linear_probe import LinearProbe
from graftwork.methods.selection.logme import LogME
from graftwork.methods.selection.nce import NegativeConditionalEntropy
from graftwork.methods.selection.nearest import NearestNeighbours
from graftwork.methods.selection.trans_rate import TransRate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ALL: dict[str, Callable[[], Scorer]] = {
    "logme": LogME,
    "h-score": HScore,
    "shrunken": lambda: HScore(shrink=True),
    "leep": Leep,
    "nce": NegativeConditionalEntropy,
    "transrate": TransRate,
    "gbc": BhattacharyyaSeparability,
    "knn": NearestNeighbours,
    "probe": LinearProbe,
}


def world(seed: int = 0, rows: int = 120, width: int = 6, classes: int = 3, signal: float = 1.0) -> tuple[Floats, Labels]:
    """Features whose class means differ, correlated and off zero."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=rows - classes)])
    means = signal * random.normal(size=(classes, width))
    mixing = np.eye(width) + 0.3 * random.normal(size=(width, width))
    return (means[labels] + random.normal(size=(rows, width))) @ mixing + 0.5, labels


def answers(seed: int = 0, rows: int = 80, sources: int = 5, classes: int = 3) -> tuple[Floats, Labels]:
    """Class probabilities of a source that know something of the labels."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=rows - classes)])
    logits = random.normal(size=(rows, sources)) + 2.0 * random.normal(size=(classes, sources))[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def inputs_of(scorer: Scorer, seed: int = 0) -> tuple[Floats, Labels]:
    return answers(seed) if scorer.reads == "probabilities" else world(seed)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_papers(seed: int) -> None:
    features, labels = world(seed)
    probabilities, own = answers(seed)
    assert LogME().score(features, labels) == pytest.approx(formulas.logme(features, np.eye(3)[labels]), abs=1e-6)
    assert HScore().score(features, labels) == pytest.approx(formulas.h_score(features, labels), rel=1e-8)
    assert HScore(shrink=True).score(features, labels) == pytest.approx(formulas.shrunken_h_score(features, labels), rel=1e-8)
    assert Leep().score(probabilities, own) == pytest.approx(formulas.leep(probabilities, own), rel=1e-9)
    assert NegativeConditionalEntropy().score(probabilities, own) == pytest.approx(formulas.nce(probabilities, own), rel=1e-9)
    assert TransRate().score(features, labels) == pytest.approx(formulas.trans_rate(features, labels), rel=1e-5)
    equal = TransRate(weighting="equal").score(features, labels)
    assert equal == pytest.approx(formulas.trans_rate(features, labels, equal=True), rel=1e-5)
    for variance in ("spherical", "diagonal"):
        wanted = formulas.gbc(features, labels, 4, spherical=variance == "spherical")
        found = BhattacharyyaSeparability(components=4, variance=variance).score(features, labels)  # type: ignore[arg-type]
        assert found == pytest.approx(wanted, rel=1e-6)


def test_logme_of_several_values_is_the_mean_over_columns() -> None:
    features, labels = world(3)
    random = np.random.default_rng(3)
    values = np.stack([features @ random.normal(size=6), random.normal(size=len(features)), labels.astype(float)], axis=1)
    values += 0.3 * random.normal(size=values.shape)
    assert LogME(standardize=False).score(features, values) == pytest.approx(formulas.logme(features, values), abs=1e-6)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    assert LogME().score(features, values) == pytest.approx(formulas.logme(features, scaled), abs=1e-6)
    assert LogME().score(features, 1000.0 * values + 7.0) == pytest.approx(LogME().score(features, values), abs=1e-9)


def test_neighbours_and_probe_agree_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = world(5, rows=150, signal=0.7)
    theirs = cross_val_predict(KNeighborsClassifier(5), features, labels, cv=LeaveOneOut())
    ours = NearestNeighbours(similarity="euclidean").score(features, labels)
    assert ours == pytest.approx(np.mean(theirs == labels), abs=0.03), "they differ where votes are equal"
    linear = np.mean(cross_val_predict(LogisticRegression(), features, labels, cv=5) == labels)
    assert LinearProbe().score(features, labels) == pytest.approx(linear, abs=0.15)


def test_a_penalised_fit_is_the_minimum_of_its_loss() -> None:
    from sklearn.linear_model import LogisticRegression

    from graftwork.math.linear_fits import fit_multinomial

    features, labels = world(2)
    found = fit_multinomial(features, labels, 0.1, np.zeros((3, 7)), steps=500)
    # scikit-learn sums the loss over rows and weighs it by C.
    peer = LogisticRegression(C=1 / (0.1 * len(labels)), tol=1e-10, max_iter=5000).fit(features, labels)
    np.testing.assert_allclose(found[:, :-1], peer.coef_, atol=1e-3)


def test_values_are_judged_by_neighbours_and_probe() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 4))
    values = features @ random.normal(size=(4, 2)) + 0.1 * random.normal(size=(300, 2))
    assert LinearProbe().score(features, values) > 0.95
    assert 0.5 < NearestNeighbours(similarity="euclidean").score(features, values) < 1.0
    noise = random.normal(size=(300, 2))
    assert LinearProbe().score(features, noise) < 0.1
    assert NearestNeighbours().score(features, noise) < 0.1


@pytest.mark.parametrize("name", ALL)
def test_better_features_score_higher(name: str) -> None:
    make = ALL[name]
    seen, labels = inputs_of(make(), 1)
    wrong = np.random.default_rng(0).permutation(labels)
    assert make().score(seen, labels) > make().score(seen, wrong)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 80), max_size=4))
def test_blocks_order_and_names_of_classes_do_not_matter(name: str, seed: int, cuts: list[int]) -> None:
    make = ALL[name]
    random = np.random.default_rng(seed)
    seen, labels = inputs_of(make(), seed)
    numbers = np.arange(len(labels))
    whole = make().run(lambda: [block_of(make(), seen, labels, numbers)])
    order = random.permutation(len(labels))
    renamed = np.array([4, 0, 2])[labels]
    edges = [0, *sorted(cuts), len(order)]
    blocks = [
        block_of(make(), seen[order[a:b]], renamed[order[a:b]], numbers[order[a:b]])
        for a, b in itertools.pairwise(edges)
        if b > a
    ]
    assert make().run(lambda: blocks) == pytest.approx(whole, rel=1e-6, abs=1e-9)


def block_of(scorer: Scorer, seen: Floats, labels: Labels, numbers: Labels | None = None) -> ScoredRows:
    return ScoredRows(target=labels, rows=numbers, **{scorer.reads: seen})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, make in ALL.items() if make().passes == 1])
def test_merged_scorers_have_seen_all_blocks(name: str) -> None:
    make = ALL[name]
    seen, labels = inputs_of(make(), 7)
    numbers = np.arange(len(labels))
    merged, parts = make(), np.array_split(np.random.default_rng(0).permutation(len(labels)), 5)
    for part in parts:
        one = make()
        one.update(block_of(one, seen[part], labels[part], numbers[part]))
        merged.merge(one)
    whole = make().run(lambda: [block_of(make(), seen, labels, numbers)])
    assert merged.finish() == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", ["leep", "gbc", "transrate", "probe"])
def test_scorers_with_two_passes_refuse_to_merge(name: str) -> None:
    with pytest.raises(NotImplementedError, match="2 passes"):
        ALL[name]().merge(ALL[name]())


@pytest.mark.parametrize("make", [LogME, HScore, ALL["shrunken"], TransRate, BhattacharyyaSeparability])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rotated_features_score_the_same(make: Callable[[], Scorer], seed: int) -> None:
    features, labels = world(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    assert make().score(features @ turn, labels) == pytest.approx(make().score(features, labels), rel=1e-5, abs=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_plain_h_score_ignores_scales_mixing_and_offsets(seed: int) -> None:
    features, labels = world(seed)
    random = np.random.default_rng(seed)
    mixed = (features * random.uniform(0.3, 3, size=6)) @ (np.eye(6) + 0.1 * random.normal(size=(6, 6))) + 10.0
    assert HScore().score(mixed, labels) == pytest.approx(HScore().score(features, labels), rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_missing_labels_absent_classes_and_half_precision(name: str) -> None:
    make = ALL[name]
    seen, labels = inputs_of(make(), 2)
    reference = make().score(seen, labels)
    holes = np.concatenate([labels, np.full(7, -1)])
    assert make().score(np.concatenate([seen, seen[:7]]), holes) == pytest.approx(reference, rel=1e-9)
    shifted = np.where(labels == 2, 9, labels)  # classes 2 to 8 have no rows
    assert make().score(seen, shifted) == pytest.approx(reference, rel=1e-9)
    assert make().score(seen.astype(np.float16), labels) == pytest.approx(reference, rel=0.03)


@pytest.mark.parametrize("name", ALL)
def test_rows_that_tell_nothing_are_refused(name: str) -> None:
    make = ALL[name]
    seen, labels = inputs_of(make())
    with pytest.raises(DataError, match="one class"):
        make().score(seen, np.zeros_like(labels))
    with pytest.raises(DataError, match=r"label|target"):
        make().score(seen, np.full_like(labels, -1))
    with pytest.raises(DataError, match="not finite"):
        make().score(np.where(np.arange(len(seen))[:, None] == 3, np.nan, seen), labels)
    with pytest.raises(DataError, match="targets"):
        make().score(seen[:-1], labels)
    with pytest.raises(ConfigError, match="NumPy"):
        make().score(seen.tolist(), labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, make in ALL.items() if make().reads == "features"])
def test_constant_features_and_few_rows_give_finite_scores(name: str) -> None:
    make = ALL[name]
    features, labels = world(4)
    constant = np.concatenate([features, np.full((len(features), 2), 1e4)], axis=1)
    assert np.isfinite(make().score(constant, labels))
    assert np.isfinite(make().score(np.full((len(labels), 3), 7.0), labels))
    wide, few = world(4, rows=20, width=50)
    assert np.isfinite(make().score(wide, few))


def test_constant_features_add_nothing() -> None:
    features, labels = world(4)
    constant = np.concatenate([features, np.full((len(features), 2), 1e4)], axis=1)
    assert HScore().score(constant, labels) == pytest.approx(HScore().score(features, labels), rel=1e-6)
    assert TransRate().score(constant, labels) == pytest.approx(TransRate().score(features, labels), rel=1e-4)


def test_logme_falls_with_the_noise_of_its_targets() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 10))
    clean = features @ random.normal(size=10)
    scores = [LogME().score(features, clean + noise * random.normal(size=200)) for noise in (0.1, 1.0, 10.0)]
    assert scores[0] > scores[1] > scores[2]


def test_a_source_class_that_is_never_answered_takes_no_part() -> None:
    probabilities, labels = answers(0)
    padded = np.concatenate([probabilities, np.zeros((len(labels), 2))], axis=1)
    for make in (Leep, NegativeConditionalEntropy):
        assert make().score(padded, labels) == pytest.approx(make().score(probabilities, labels), rel=1e-12)
    with pytest.raises(DataError, match="sum to 1"):
        Leep().score(2.0 * probabilities, labels)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (TransRate, {"weighting": "odd"}),
        (TransRate, {"distortion": 0.0}),
        (TransRate, {"memory": 0.0}),
        (BhattacharyyaSeparability, {"components": 0}),
        (NearestNeighbours, {"neighbours": 0}),
        (LinearProbe, {"max_rows": 1}),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[..., Any], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        make(**settings)


def test_scorers_say_what_does_not_fit() -> None:
    features, labels = world()
    with pytest.raises(DataError, match="judges classes"):
        HScore().score(features, labels.astype(float))
    scorer = LogME()
    scorer.update(ScoredRows(target=labels, features=features))
    with pytest.raises(DataError, match="after blocks with 6"):
        scorer.update(ScoredRows(target=labels, features=features[:, :4]))
    with pytest.raises(DataError, match="after blocks with classes"):
        scorer.update(ScoredRows(target=labels.astype(float), features=features))
    with pytest.raises(DataError, match="reads probabilities"):
        Leep().update(ScoredRows(target=labels, features=features))


@pytest.mark.parametrize("name", ["logme", "shrunken", "leep", "nce", "transrate", "gbc"])
def test_a_stream_leaves_no_rows_behind(name: str) -> None:
    def blocks() -> Iterator[ScoredRows]:
        for seed in range(40):
            if make().reads == "probabilities":
                seen, labels = answers(seed, rows=1000, sources=50)
            else:
                seen, labels = world(0, rows=1000, width=50)
            yield block_of(make(), seen, labels, np.arange(1000) + 1000 * seed)

    make = ALL[name]
    tracemalloc.start()
    try:
        assert np.isfinite(make().run(blocks))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6, "all blocks together have 16 MB"

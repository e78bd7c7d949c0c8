"""Scores of streams: the numbers of formulas that hold all rows, in memory that does not grow with the rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import transferability_formulas as formulas
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.interfaces.scorer import ScoredRows
from graftwork.math.row_sample import row_keys
from graftwork.methods.selection.linear_probe import LinearProbe
from graftwork.methods.selection.ped import PotentialEnergyDescent
from graftwork.methods.selection.probe_sums import PENALTIES, probe_parts
from graftwork.methods.selection.trans_rate import TransRate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def world(seed: int = 0, rows: int = 900, width: int = 12, classes: int = 7) -> tuple[Floats, Labels]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=rows - classes)])
    mixing = np.eye(width) + 0.3 * random.normal(size=(width, width))
    return (random.normal(size=(classes, width))[labels] + random.normal(size=(rows, width))) @ mixing + 3.0, labels


def blocks(features: Floats, target: NDArray[np.generic], size: int = 64) -> Iterator[ScoredRows]:
    for start in range(0, len(target), size):
        part = slice(start, start + size)
        yield ScoredRows(target=target[part], features=features[part], rows=np.arange(start, min(start + size, len(target))))


@pytest.mark.parametrize("memory", [64e6, 8.0 * 12 * 12 * 2, 1.0])
@pytest.mark.parametrize("weighting", ["size", "equal"])
def test_the_coding_rates_of_classes_are_the_same_in_any_number_of_passes(memory: float, weighting: str) -> None:
    features, labels = world()
    scorer = TransRate(memory=memory, weighting=weighting)  # type: ignore[arg-type]
    found = scorer.run(lambda: blocks(features, labels))
    assert found == pytest.approx(formulas.trans_rate(features, labels, equal=weighting == "equal"), rel=1e-9)
    assert scorer.finish() == found
    assert scorer.passes == {64e6: 2, 1.0: 8}.get(memory, 5), "seven classes: all at once, two and one at a time"


def test_classes_of_fewer_rows_than_features_keep_their_rows() -> None:
    features, labels = world(rows=60, width=40, classes=6)
    scorer = TransRate(memory=8.0 * 40 * 25)
    assert scorer.run(lambda: blocks(features, labels, 7)) == pytest.approx(formulas.trans_rate(features, labels), rel=1e-9)
    assert scorer.passes > 2
    around = PotentialEnergyDescent(TransRate(memory=8.0 * 40 * 25))
    whole = PotentialEnergyDescent(TransRate())
    assert around.run(lambda: blocks(features, labels)) == pytest.approx(whole.run(lambda: blocks(features, labels)), rel=1e-9)


def parts_of(features: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    parts = probe_parts(row_keys(np.arange(len(features)), 0))
    return parts == 0, parts == 1, parts == 2


def test_a_probe_of_more_rows_than_are_kept_is_a_shrunken_discriminant_of_all() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels = world(3, rows=2500)
    held, choosing, fitting = parts_of(features)
    scaled = (features - features[fitting].mean(axis=0)) / features[fitting].std(axis=0)
    right = []
    for amount in (0.5, 0.1, 0.01, 0.001):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=amount).fit(scaled[fitting], labels[fitting])
        # scikit-learn shrinks each class's covariance by its own trace; of the pooled one this is the same matrix.
        right.append([np.mean(model.predict(scaled[rows]) == labels[rows]) for rows in (choosing, held)])
    wanted = right[int(np.argmax([one[0] for one in right]))][1]
    found = LinearProbe(max_rows=100).run(lambda: blocks(features, labels))
    assert found == pytest.approx(wanted, abs=1e-6)
    assert found > 0.5
    names = np.array([9, 0, 3, 7, 2, 5, 1])
    assert LinearProbe(max_rows=100).run(lambda: blocks(features, names[labels])) == pytest.approx(found, abs=0.01)


def test_a_probe_of_values_is_the_ridge_regression_of_all_rows() -> None:
    from sklearn.linear_model import Ridge

    features, _ = world(4, rows=1500)
    random = np.random.default_rng(4)
    values = 1e3 + features @ random.normal(size=(12, 2)) + random.normal(size=(1500, 2))
    held, choosing, fitting = parts_of(features)
    scaled = (features - features[fitting].mean(axis=0)) / features[fitting].std(axis=0)
    errors, fits = [], []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty * fitting.sum()).fit(scaled[fitting], values[fitting])
        errors.append((((model.predict(scaled[choosing]) - values[choosing]) ** 2) / values[fitting].var(axis=0)).mean())
        fits.append(model)
    wrong = ((fits[int(np.argmin(errors))].predict(scaled[held]) - values[held]) ** 2).mean(axis=0)
    wanted = (1.0 - wrong / values[held].var(axis=0)).mean()
    assert LinearProbe(max_rows=100).run(lambda: blocks(features, values)) == pytest.approx(wanted, abs=1e-6)


def test_constant_features_and_missing_targets_change_no_probe() -> None:
    features, labels = world(5, rows=1200)
    whole = LinearProbe(max_rows=100).score(features, labels)
    constant = np.concatenate([features, np.full((len(features), 2), 1e5)], axis=1)
    assert LinearProbe(max_rows=100).score(constant, labels) == pytest.approx(whole, abs=1e-9)
    assert np.isfinite(LinearProbe(max_rows=100).score(np.full_like(features, 7.0), labels))
    holes = np.where(np.arange(len(labels)) % 3 == 0, -1, labels)
    assert LinearProbe(max_rows=100).score(features, holes) == pytest.approx(whole, abs=0.1)
    with pytest.raises(DataError, match="differ"):
        LinearProbe(max_rows=100).score(features, np.ones(len(labels)))


@pytest.mark.parametrize("name", ["transrate", "probe of classes", "probe of values"])
def test_long_streams_take_the_memory_of_short_ones(name: str) -> None:
    def stream(count: int) -> Iterator[ScoredRows]:
        means = np.random.default_rng(0).normal(size=(20, 64))
        for start in range(0, count, 1000):
            random = np.random.default_rng([1, start])
            labels = random.integers(20, size=1000)
            features = (means[labels] + random.normal(size=(1000, 64))).astype(np.float32)
            target = features[:, :2].astype(np.float64) if name == "probe of values" else labels
            yield ScoredRows(target=target, features=features, rows=np.arange(start, start + 1000))

    peaks = []
    for count in (5_000, 25_000):
        scorer = TransRate(memory=2e5) if name == "transrate" else LinearProbe(max_rows=1000)
        tracemalloc.start()
        try:
            assert np.isfinite(scorer.run(lambda count=count: stream(count)))  # type: ignore[misc]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0], "all rows have five times as many bytes"

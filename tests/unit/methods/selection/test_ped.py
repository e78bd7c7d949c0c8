"""PED and SFDA against formulas written row by row and pair by pair, and the properties that the papers claim."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows, Scorer, SourceFacts
from graftwork.methods.selection.h_score import HScore
from graftwork.methods.selection.leep import Leep
from graftwork.methods.selection.logme import LogME
from graftwork.methods.selection.ped import PotentialEnergyDescent, Repulsion, class_moves
from graftwork.methods.selection.sfda import SelfChallengingFisher

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def world(seed: int = 0, rows: int = 90, width: int = 5, classes: int = 4) -> tuple[Floats, Labels]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=rows - classes)])
    return 0.3 * random.normal(size=(classes, width))[labels] + random.normal(size=(rows, width)) + 2.0, labels


def moved_by_pairs(rows: Floats, labels: Labels, mean: Floats, deviation: Floats, motion: Repulsion) -> tuple[Floats, int]:
    """The paper's motion with loops over pairs, rescaling and undoing it in every step."""
    first, steps = None, 0
    while steps < motion.max_steps:
        scaled = (rows - mean) / np.maximum(deviation, 1e-3)
        classes = np.unique(labels)
        shift = {label: np.zeros(rows.shape[1]) for label in classes}
        for i in classes:
            for j in classes:
                if i >= j:
                    continue
                one, two = scaled[labels == i], scaled[labels == j]
                apart = one.mean(axis=0) - two.mean(axis=0)
                distance = np.linalg.norm(apart)
                reach = motion.sigmas * (np.sqrt(one.var(axis=0).sum()) + np.sqrt(two.var(axis=0).sum()))
                overlap = max(reach - distance, 0.0)
                size = min(0.5 * motion.time_step**2 * motion.constant * overlap, overlap)
                shift[i] += apart / distance * size
                shift[j] -= apart / distance * size
        total = sum(np.abs(part).sum() for part in shift.values())
        first = total if first is None else first
        if not total > motion.exit_ratio * first:
            break
        rows = (scaled + np.stack([shift[label] for label in labels])) * np.maximum(deviation, 1e-3) + mean
        steps += 1
    return rows, steps


@pytest.mark.parametrize("motion", [Repulsion(), Repulsion(sigmas=0.3, time_step=0.6), Repulsion(time_step=1.0, exit_ratio=0.8)])
@pytest.mark.parametrize("base", [LogME, HScore, SelfChallengingFisher])
def test_scores_are_those_of_rows_moved_pair_by_pair(base: type[Scorer], motion: Repulsion) -> None:
    rows, labels = world()
    random = np.random.default_rng(9)
    facts = SourceFacts(mean=random.normal(size=5), deviation=random.uniform(0.5, 2.0, size=5))
    assert facts.mean is not None
    assert facts.deviation is not None
    moved, steps = moved_by_pairs(rows, labels, facts.mean, facts.deviation, motion)
    scorer = PotentialEnergyDescent(base(), motion)
    scorer.bind(facts)
    blocks = [
        ScoredRows(target=labels[part], features=rows[part], rows=np.arange(len(labels))[part])
        for part in (slice(0, 31), slice(31, None))
    ]
    found = scorer.run(lambda: blocks)
    assert scorer.steps == steps
    assert found == pytest.approx(base().score(moved, labels), rel=1e-8)
    assert found != pytest.approx(base().score(rows, labels), rel=1e-8)


def test_two_classes_move_apart_by_hand() -> None:
    means, radii = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([2.0, 1.0])
    # Overlap 0.6 * 3 - 1 = 0.8; each moves by 0.005 * 0.8.
    moves, steps = class_moves(means, radii, Repulsion(max_steps=1))
    assert steps == 1
    np.testing.assert_allclose(moves, [[-0.004, 0.0], [0.004, 0.0]])
    pulled, _ = class_moves(means, radii, Repulsion(max_steps=1, constant=-1.0))
    np.testing.assert_allclose(pulled, -moves)


def test_forces_are_opposite_and_far_classes_stay() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(6, 3))
    moves, _ = class_moves(means, np.full(6, 2.0), Repulsion(time_step=0.4))
    np.testing.assert_allclose(moves.sum(axis=0), 0.0, atol=1e-12)
    assert np.abs(moves).max() > 0.01
    still, steps = class_moves(10.0 * means, np.full(6, 0.01), Repulsion())
    assert steps == 0
    assert not still.any()


def test_motion_ends_once_it_falls_below_its_share_of_the_first_step() -> None:
    means, radii = np.array([[0.0], [1.0]]), np.array([2.0, 2.0])
    # Overlap 1.4, then 1.4 (1 - t^2) a step: 0.64 of it after one step, 0.41 after two.
    _, steps = class_moves(means, radii, Repulsion(time_step=0.6, exit_ratio=0.5))
    assert steps == 2
    assert class_moves(means, radii, Repulsion(time_step=0.6, exit_ratio=0.0))[1] == 6


def test_equal_means_have_no_direction() -> None:
    moves, steps = class_moves(np.zeros((3, 2)), np.ones(3), Repulsion())
    assert steps == 0
    assert not moves.any()


def fisher(rows: Floats, labels: Labels, shrinkage: float | None) -> tuple[Floats, float]:
    """A regularised discriminant in the paper's form: a generalised eigenproblem, all directions kept."""
    from scipy.linalg import eigh

    classes, counts = np.unique(labels, return_counts=True)
    priors = counts / len(labels)
    within = sum(prior * np.cov(rows[labels == label].T, bias=True) for prior, label in zip(priors, classes, strict=True))
    if shrinkage is None:
        shrinkage = max(float(np.exp(-5 * np.linalg.eigvalsh(within).max())), 1e-10)

    def shrunk(matrix: Floats) -> Floats:
        return (1 - shrinkage) * matrix + shrinkage * np.trace(matrix) / len(matrix) * np.eye(len(matrix))

    vectors = eigh(shrunk(np.cov(rows.T, bias=True)) - shrunk(within), shrunk(within))[1]
    means = np.stack([rows[labels == label].mean(axis=0) for label in classes])
    weights = means @ vectors @ vectors.T
    logits = rows @ weights.T - 0.5 * np.diag(means @ weights.T) + np.log(priors)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), shrinkage


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_sfda_is_that_of_the_paper(scale: float) -> None:
    rows, labels = world(3)
    rows = scale * rows
    answers, shrinkage = fisher(rows, labels, None)
    assert (shrinkage > 0.1) == (scale < 1)
    softened = np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(4)])
    mixed = rows.copy()
    for place, label in enumerate(labels):
        sure = softened[place, label]
        mixed[place] = sure * rows[place] + (1 - sure) * np.delete(means, label, axis=0).mean(axis=0)
    wanted = fisher(mixed, labels, shrinkage)[0][np.arange(len(labels)), labels].mean()
    assert SelfChallengingFisher().score(rows, labels) == pytest.approx(wanted, rel=1e-7)


def test_sfda_keeps_its_rows_and_survives_classes_that_are_missing() -> None:
    rows, labels = world(1)
    before = rows.copy()
    found = SelfChallengingFisher().score(rows, labels)
    np.testing.assert_array_equal(rows, before)
    assert SelfChallengingFisher().score(rows, np.where(labels == 3, 8, labels)) == pytest.approx(found, rel=1e-9)
    constant = np.concatenate([rows, np.full((len(rows), 2), 5.0)], axis=1)
    assert 0.0 <= SelfChallengingFisher().score(constant, labels) <= 1.0
    assert SelfChallengingFisher().score(np.full((len(labels), 3), 7.0), labels) <= 1.0


def test_without_generic_rows_their_own_moments_stand_in() -> None:
    rows, labels = world(2)
    moved, _ = moved_by_pairs(rows, labels, rows.mean(axis=0), rows.std(axis=0), Repulsion())
    assert PotentialEnergyDescent().score(rows, labels) == pytest.approx(LogME().score(moved, labels), rel=1e-8)


def test_apart_classes_score_higher_than_pulled_together_ones() -> None:
    rows, labels = world(4)
    scores = [
        PotentialEnergyDescent(repulsion=Repulsion(time_step=0.5, constant=constant)).score(rows, labels)
        for constant in (1.0, -1.0)
    ]
    assert scores[0] > LogME().score(rows, labels) > scores[1]


def test_what_cannot_be_judged_is_refused() -> None:
    rows, labels = world()
    for scorer in (PotentialEnergyDescent(), SelfChallengingFisher()):
        with pytest.raises(DataError, match="one class"):
            scorer.score(rows, np.zeros_like(labels))
        with pytest.raises(DataError, match="label"):
            scorer.score(rows, np.full_like(labels, -1))
        with pytest.raises(DataError, match="judges classes"):
            scorer.score(rows, labels.astype(float))
    with pytest.raises(ConfigError, match="moves features"):
        PotentialEnergyDescent(Leep())


@pytest.mark.parametrize(
    "setting", [{"sigmas": 0.0}, {"time_step": -1.0}, {"constant": 0.0}, {"exit_ratio": 1.5}, {"max_steps": 0}]
)
def test_numbers_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Repulsion(**setting)  # type: ignore[arg-type]

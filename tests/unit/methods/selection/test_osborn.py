"""OSBORN: its terms against plans found another way, the sets that it prefers, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import ot
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows, SourceFacts
from graftwork.math.transport import exact_transport, sinkhorn_transport
from graftwork.methods.selection.greedy import GreedySets
from graftwork.methods.selection.osborn import Osborn, conditional_entropy, transport_terms

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def dual_plan(cost: Floats, regularization: float) -> Floats:
    """The entropic plan from its dual, maximised by a general solver: no scaling iterations."""
    rows, columns = cost.shape

    def loss(potentials: Floats) -> tuple[float, Floats]:
        left, right = potentials[:rows], potentials[rows:]
        mass = np.exp((left[:, None] + right[None] - cost) / regularization)
        value = regularization * mass.sum() - left.mean() - right.mean()
        slope = np.concatenate([mass.sum(axis=1) - 1 / rows, mass.sum(axis=0) - 1 / columns])
        return float(value), slope

    found = minimize(
        loss, np.zeros(rows + columns), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-10, "ftol": 0}
    )
    left, right = found.x[:rows], found.x[rows:]
    return np.asarray(np.exp((left[:, None] + right[None] - cost) / regularization))


def model(seed: int, shift: float = 0.0) -> tuple[Floats, Labels, Floats, Labels]:
    random = np.random.default_rng(seed)
    means = random.normal(size=(3, 4))
    own, other = random.integers(3, size=24), np.concatenate([np.arange(3), random.integers(3, size=17)])
    return (
        means[own] + 0.3 * random.normal(size=(24, 4)), own,
        means[other] + 0.3 * random.normal(size=(20, 4)) + shift, other,
    )  # fmt: skip


def entropy_by_loops(plan: Floats, rows: Labels, columns: Labels) -> float:
    found = 0.0
    for source in np.unique(rows):
        whole = plan[rows == source].sum()
        for target in np.unique(columns):
            mass = plan[np.ix_(rows == source, columns == target)].sum()
            found -= mass * np.log(mass / whole) if mass > 0 else 0.0
    return found / plan.sum()


@pytest.mark.parametrize("seed", range(3))
def test_terms_are_those_of_a_plan_found_by_its_dual(seed: int) -> None:
    source, labels, target, classes = model(seed)
    centred = source - source.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())
    cost = ((source[:, None] - target[None]) ** 2).sum(axis=2) / scale**2
    plan = dual_plan(cost / cost.max(), 0.1)
    terms = transport_terms(source, labels, target, classes, 0.1)
    assert terms.domain == pytest.approx((plan * cost).sum(), rel=1e-3)
    assert terms.task == pytest.approx(entropy_by_loops(plan, labels, classes), rel=1e-3)


def test_the_plan_is_that_of_pot() -> None:
    cost = np.random.default_rng(0).random((12, 9))
    shares = np.full(12, 1 / 12), np.full(9, 1 / 9)
    np.testing.assert_allclose(sinkhorn_transport(cost, 0.1), ot.sinkhorn(*shares, cost, 0.1), atol=1e-6)
    assert (exact_transport(cost) * cost).sum() == pytest.approx(ot.emd2(*shares, cost), rel=1e-6)


def test_a_moved_domain_is_farther_and_does_not_depend_on_the_unit() -> None:
    near, far = transport_terms(*model(0), 0.1), transport_terms(*model(0, shift=2.0), 0.1)
    assert far.domain > near.domain
    source, labels, target, classes = model(0)
    scaled = transport_terms(100.0 * source + 7.0, labels, 100.0 * target + 7.0, classes, 0.1)
    assert scaled.domain == pytest.approx(near.domain)
    assert scaled.task == pytest.approx(near.task)


def test_labels_that_say_nothing_leave_the_whole_entropy() -> None:
    source, labels, target, classes = model(1)
    shares = np.bincount(classes) / len(classes)
    blind = transport_terms(source, np.zeros_like(labels), target, classes, 0.1)
    assert blind.task == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-4)
    assert transport_terms(source, labels, target, classes, 0.1).task < blind.task
    assert conditional_entropy(np.diag([0.2, 0.8])) == pytest.approx(0.0, abs=1e-12)


def pool(count: int = 4, rows: int = 40) -> tuple[list[SourceFacts], list[ScoredRows]]:
    random = np.random.default_rng(5)
    target = np.concatenate([np.arange(3), random.integers(3, size=rows - 3)])
    facts, seen = [], []
    for number in range(count):
        means = random.normal(size=(3, 4))
        own = random.integers(3, size=30)
        facts.append(SourceFacts(name=f"m{number}", features=means[own] + 0.5 * random.normal(size=(30, 4)), labels=own))
        features = means[target] + (0.5 + number) * random.normal(size=(rows, 4))
        logits = random.normal(size=(rows, 5)) + 3.0 / (1 + number) * np.eye(5)[target]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        seen.append(ScoredRows(target=target, features=features, probabilities=probabilities, rows=np.arange(rows)))
    return facts, seen


def judged(scorer: Osborn, cut: int = 40) -> Osborn:
    facts, seen = pool()
    scorer.bind(facts)
    for part in (slice(0, cut), slice(cut, None)):
        if len(seen[0].target[part]):
            scorer.update([ScoredRows(target=one.target[part], features=one.features[part], probabilities=one.probabilities[part],  # type: ignore[index]
                                      rows=one.rows[part]) for one in seen])  # type: ignore[index]  # fmt: skip
    return scorer


def test_values_of_sets_are_sums_of_scaled_terms() -> None:
    scorer = judged(Osborn(weights=(1.0, 2.0, 0.5)))
    value, terms, apart = scorer.finish(), scorer.terms(), scorer.disagreements()
    _, seen = pool()
    answers = [one.probabilities.argmax(axis=1) for one in seen]  # type: ignore[union-attr]
    # H(M_2 | M_0) by hand.
    wanted = 0.0
    for one in np.unique(answers[0]):
        part = np.bincount(answers[2][answers[0] == one]) / (answers[0] == one).sum()
        wanted -= (answers[0] == one).mean() * (part[part > 0] * np.log(part[part > 0])).sum()
    assert apart[0, 2] == pytest.approx(wanted)
    off = apart[~np.eye(4, dtype=bool)]
    scaled = (apart - off.min()) / np.ptp(off)
    domain = np.array([one.domain for one in terms])
    task = np.array([one.task for one in terms])
    single = (domain - domain.min()) / np.ptp(domain) + 2.0 * (task - task.min()) / np.ptp(task)
    for members in ([0], [1, 3], [0, 2, 3]):
        pairs = sum(scaled[i, j] for i, j in itertools.permutations(members, 2))
        assert value(members) == pytest.approx(-(single[members].sum() + 0.5 * pairs))


def test_blocks_do_not_matter_and_a_pool_is_judged_greedily() -> None:
    whole, parts = judged(Osborn()).finish(), judged(Osborn(), cut=13).finish()
    for members in itertools.combinations(range(4), 2):
        assert parts(members) == pytest.approx(whole(members))
    assert GreedySets().select(whole, 4, 1) == (max(range(4), key=lambda index: whole([index])),)


def test_adding_a_model_to_a_larger_set_helps_less() -> None:
    value = judged(Osborn()).finish()
    gains = [value([0, 1, 2, 3]) - value([0, 1, 2]), value([0, 1, 3]) - value([0, 1]), value([0, 3]) - value([0])]
    assert gains == sorted(gains), "the value is submodular"


def test_what_is_missing_is_said() -> None:
    facts, seen = pool()
    with pytest.raises(ConfigError, match="regularization"):
        Osborn(regularization=0.0)
    with pytest.raises(DataError, match="m0 was trained on"):
        Osborn().bind([SourceFacts(name="m0")])
    scorer = Osborn()
    scorer.bind(facts)
    with pytest.raises(DataError, match="none was seen"):
        scorer.finish()
    with pytest.raises(DataError, match="blocks of 3 sources"):
        scorer.update(seen[:3])
    bare = [ScoredRows(target=one.target, features=one.features) for one in seen]
    with pytest.raises(DataError, match="class probabilities"):
        scorer.update(bare)

r"""OSBORN: how promising a set of source models is for a target, from domain, task and cohesion, before any fine-tuning.

Paper: Vimal et al., "Building a Winning Team: Selecting Source Model Ensembles using a Submodular Transferability Estimation
Approach", ICCV 2023, https://arxiv.org/abs/2309.02429. For each model ``m``, :math:`\pi` is the entropic transport plan between its
features of rows of its own data set and of rows of the target.

- Domain difference :math:`W_D(m) = \sum_{ij} \pi_{ij} \lVert f_i - f'_j \rVert^2`.
- Task difference :math:`W_T(m) = H(Y_t | Y_s)` under the joint distribution of labels that the plan gives: the mass between the rows of
  each pair of a source and a target class.
- Cohesion :math:`W_C(E)`: the sum over ordered pairs of members of :math:`H(M_j | M_i)`, the conditional entropy of the classes that
  their own classifiers answer on the target's rows; low where members inform each other.

The three are brought to [0, 1] over the pool and added; the value of a set is minus this sum, so that higher is better. Sets of one
size compare. Selection is greedy (:class:`~graftwork.methods.selection.greedy.GreedySets`).

Departures: the signs and the pairing of the cohesion term are from a summary of the paper; features of each model are centred on its
source rows and divided by their root mean square, so that distances of two models compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows, SourceFacts
from graftwork.interfaces.set_selector import SetScorer, SetValue
from graftwork.math.row_sample import RowSample
from graftwork.math.transport import sinkhorn_transport

__all__ = ["Osborn", "TransportTerms", "conditional_entropy", "transport_terms"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_TOLERANCE, _ITERATIONS = 1e-6, 500


@dataclass(frozen=True, slots=True)
class TransportTerms:
    """What the transport plan says of one model."""

    domain: float
    task: float
    """In nats."""


class Osborn(SetScorer):
    """Reads features and class probabilities of each source and class indices; facts with features and labels of each source's own
    rows come through :meth:`bind`.

    Args:
        regularization: Of the transport, above 0, in units of the largest distance.
        max_rows: Rows of the target, and of each source, that the plan is made of; at least 2.
        weights: Factors of domain, task and cohesion; 0 leaves a term out.
        seed: Draws the rows.

    Raises:
        ConfigError: If an argument is out of range.
    """

    reads = "features"

    def __init__(
        self,
        *,
        regularization: float = 0.1,
        max_rows: int = 300,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        seed: int = 0,
    ) -> None:
        if not regularization > 0 or max_rows < 2 or len(weights) != 3 or not np.isfinite(weights).all():
            raise ConfigError(
                "Osborn: regularization is above 0, max_rows at least 2, weights are three finite numbers; got "
                f"{regularization!r}, {max_rows!r} and {weights!r}."
            )
        self.regularization, self.max_rows, self.weights, self.seed = regularization, max_rows, weights, seed
        self._facts: Sequence[SourceFacts] = ()
        self._samples: list[RowSample] = []
        self._answers: list[list[Labels]] = []

    def bind(self, facts: Sequence[SourceFacts]) -> None:
        """Take the rows that each source was trained on.

        Raises:
            DataError: If a source has none, or none with labels.
        """
        for number, fact in enumerate(facts):
            if fact.features is None or fact.labels is None or len(fact.features) < 2:
                name = fact.name or f"source {number}"
                raise DataError(f"Osborn needs features and labels of rows that {name} was trained on.")
        self._facts = facts

    def update(self, rows: Sequence[ScoredRows]) -> None:
        """See one block of every source.

        Raises:
            DataError: If the sources are not those of the facts, or a block gives no features or probabilities.
        """
        if len(rows) != len(self._facts):
            raise DataError(f"Osborn got blocks of {len(rows)} sources and facts of {len(self._facts)}.")
        self._samples = self._samples or [RowSample(self.max_rows, seed=self.seed) for _ in rows]
        self._answers = self._answers or [[] for _ in rows]
        for sample, answers, block in zip(self._samples, self._answers, rows, strict=True):
            if block.features is None or block.probabilities is None:
                raise DataError("Osborn reads features and class probabilities of every source.")
            known = np.asarray(block.target) >= 0
            numbers = None if block.rows is None else block.rows[known]
            sample.update(np.asarray(block.features[known], dtype=np.float32), np.asarray(block.target)[known], numbers)
            answers.append(np.asarray(block.probabilities[known]).argmax(axis=1))

    def finish(self) -> SetValue:
        """Return the value of any set.

        Raises:
            DataError: If no row has a label.
        """
        if not self._samples or not len(self._samples[0].rows):
            raise DataError("Osborn needs rows with labels: none was seen.")
        terms = self.terms()
        domain, task = (_scaled(np.array(values)) for values in zip(*((one.domain, one.task) for one in terms), strict=True))
        apart = self.disagreements()
        pairs = ~np.eye(len(terms), dtype=np.bool_)
        cohesion = np.zeros_like(apart)
        if pairs.any():
            cohesion[pairs] = _scaled(apart[pairs])
        single = self.weights[0] * domain + self.weights[1] * task

        def value(members: Sequence[int]) -> float:
            chosen = list(members)
            # The diagonal is 0: a model is no pair with itself.
            return -float(single[chosen].sum() + self.weights[2] * cohesion[np.ix_(chosen, chosen)].sum())

        return value

    def terms(self) -> list[TransportTerms]:
        """Return the terms of each source, not scaled over the pool."""
        found = []
        for number, (fact, sample) in enumerate(zip(self._facts, self._samples, strict=True)):
            random = np.random.default_rng([self.seed, number])
            assert fact.features is not None
            assert fact.labels is not None
            kept = random.permutation(len(fact.features))[: self.max_rows]
            found.append(
                transport_terms(
                    np.asarray(fact.features, dtype=np.float64)[kept],
                    np.asarray(fact.labels)[kept],
                    sample.rows.astype(np.float64),
                    sample.targets.astype(np.int64),
                    self.regularization,
                )
            )
        return found

    def disagreements(self) -> Floats:
        """Return ``H(M_j | M_i)`` in nats at ``[i, j]``, 0 on the diagonal."""
        answers = [np.concatenate(parts) for parts in self._answers]
        count = len(answers)
        found = np.zeros((count, count))
        for i in range(count):
            for j in range(count):
                if i != j:
                    found[i, j] = conditional_entropy(_joint(answers[i], answers[j], np.ones(len(answers[i]))))
        return found


def transport_terms(
    source: Floats, source_labels: Labels, target: Floats, target_labels: Labels, regularization: float
) -> TransportTerms:
    """Return both terms of one model.

    Args:
        source: Its features of its own rows, ``[n, D]``.
        source_labels: ``[n]``.
        target: Its features of the target's rows, ``[m, D]``.
        target_labels: ``[m]``.
        regularization: Of the plan, in units of the largest distance.
    """
    from scipy.spatial.distance import cdist

    mean = source.mean(axis=0)
    size = float(np.sqrt(((source - mean) ** 2).sum(axis=1).mean()))
    scale = size if size > 0 else 1.0
    cost = cdist((source - mean) / scale, (target - mean) / scale, "sqeuclidean")
    largest = float(cost.max())
    if not largest > 0:
        plan = np.full(cost.shape, 1.0 / cost.size)
    else:
        plan = sinkhorn_transport(cost / largest, regularization, iterations=_ITERATIONS, tolerance=_TOLERANCE)
    place = np.unique(source_labels, return_inverse=True)[1].reshape(-1)
    other = np.unique(target_labels, return_inverse=True)[1].reshape(-1)
    rows, columns = np.indices(plan.shape)
    joint = _joint(place[rows.ravel()], other[columns.ravel()], plan.ravel())
    return TransportTerms(float((plan * cost).sum()), conditional_entropy(joint))


def conditional_entropy(joint: Floats) -> float:
    """Return ``H(column | row)`` in nats of masses ``[A, B]``, which need not sum to 1.

    Example:
        >>> round(conditional_entropy(np.array([[1.0, 1.0], [0.0, 2.0]])), 4) == round(0.5 * np.log(2), 4)
        True
    """
    shares = joint / joint.sum()
    given = np.divide(shares, shares.sum(axis=1, keepdims=True), out=np.ones_like(shares), where=shares > 0)
    return float(-(shares * np.log(given)).sum())


def _joint(first: Labels, second: Labels, mass: Floats) -> Floats:
    width = int(second.max()) + 1
    cells = np.bincount(first * width + second, weights=mass, minlength=(int(first.max()) + 1) * width)
    return np.asarray(cells, dtype=np.float64).reshape(-1, width)


def _scaled(values: Floats) -> Floats:
    """Return values moved to [0, 1]; zeros if all are equal."""
    spread = float(np.ptp(values))
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)

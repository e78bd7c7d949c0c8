"""Cox regression against lifelines and against its likelihood written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graftwork.core.errors import DataError
from graftwork.domains.tabular.cox import fit_cox, partial_likelihood


def example(rows: int = 60, seed: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with many ties: times in halves."""
    rng = np.random.default_rng(seed)
    features = np.round(rng.normal(size=(rows, 3)), 2)
    time = np.ceil(rng.exponential(6 * np.exp(-features @ np.array([0.8, -0.5, 0.0]))) * 2) / 2
    return features, time, rng.random(rows) < 0.7


def test_coefficients_and_likelihood_are_those_of_lifelines() -> None:
    """Numbers of ``CoxPHFitter`` of lifelines 0.30.3 (Efron's ties) for the same rows."""
    features, time, event = example()
    assert event.sum() == 38
    assert len(np.unique(time[event])) == 23, "there are ties"
    found = fit_cox(features, time, event)
    np.testing.assert_allclose(found, [1.108341756766215, -0.4789277351009438, -0.04878669688304744], rtol=1e-8)
    assert partial_likelihood(found, features, time, event)[0] == pytest.approx(-114.19808353367063, rel=1e-10)


def test_the_likelihood_written_out() -> None:
    features, time, event = example(25, 3)
    beta = np.array([0.3, -0.2, 0.7])
    risk = [math.exp(row @ beta) for row in features]
    total = 0.0
    for moment in sorted(set(time[event])):
        tied = [i for i in range(25) if event[i] and time[i] == moment]
        everyone = sum(risk[i] for i in range(25) if time[i] >= moment)
        for number, row in enumerate(tied):
            left_out = number / len(tied) * sum(risk[i] for i in tied)
            total += float(features[row] @ beta) - math.log(everyone - left_out)
    value, slope, curve = partial_likelihood(beta, features, time, event)
    assert value == pytest.approx(total, rel=1e-12)
    for index in range(3):
        step = 1e-5 * np.eye(3)[index]
        up, down = (partial_likelihood(beta + sign * step, features, time, event) for sign in (1, -1))
        assert slope[index] == pytest.approx((up[0] - down[0]) / 2e-5, rel=1e-5)
        np.testing.assert_allclose(curve[index], (down[1] - up[1]) / 2e-5, rtol=1e-5)


def test_a_penalty_shrinks_and_makes_repeated_columns_possible() -> None:
    features, time, event = example()
    plain, shrunk = (fit_cox(features, time, event, penalty=penalty) for penalty in (0.0, 0.3))
    assert np.linalg.norm(shrunk) < 0.8 * np.linalg.norm(plain)
    twice = fit_cox(np.column_stack([features, features[:, 0]]), time, event, penalty=0.1)
    assert twice[0] == pytest.approx(twice[3])


def test_what_cannot_be_fitted_is_said() -> None:
    features, time, event = example()
    with pytest.raises(DataError, match="at least one event"):
        fit_cox(features, time, np.zeros(60, bool))
    with pytest.raises(DataError, match="finite"):
        fit_cox(features * np.nan, time, event)
    apart = np.array([[1.0], [0.0]])  # the first event's row has the highest column: its coefficient has no end
    with pytest.raises(DataError, match="did not settle"):
        fit_cox(apart, np.array([1.0, 2.0]), np.array([True, True]), max_steps=8)
